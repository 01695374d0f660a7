"""What the page tells, section by section; nothing here is markup."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from migration_pipeline.adapters.ledger.exports import LetterRow
from migration_pipeline.adapters.ledger.overview import Act
from migration_pipeline.core.model import REMEDIES, WAIVED, Outcome
from migration_pipeline.core.text import shortened
from migration_pipeline.report import plots
from migration_pipeline.report.costs import cost_section
from migration_pipeline.report.course import over_time
from migration_pipeline.report.facts import Facts, Letters
from migration_pipeline.report.folder import SUMS, Kept
from migration_pipeline.report.parts import Code, Figure, Picture, Row, Section, Table
from migration_pipeline.report.words import NONE, count, counted, duration, moment, plural, share, size

_NOT_TRIED, _PAUSED = "not tried", "paused"
_WIDTH = 5.6  # inches of a picture: two beside each other on a screen, and text still to be read on a phone


class Tile(NamedTuple):
    """A figure to be seen first."""

    figure: Figure
    label: str
    note: str


def tiles(facts: Facts) -> list[Tile]:
    """The figures that `status` gives, of the same moment."""
    state, letters, happened = facts.standing.status, facts.standing, facts.course
    done = state.migrated + state.nothing_to_move
    return [
        Tile(
            Figure(count(state.migrated), state.migrated, "profiles-migrated"),
            "profiles migrated",
            f"of {state.profiles:,} · {state.nothing_to_move:,} had nothing to move"
            + (f" · {state.waiting:,} wait" if state.waiting else ""),
        ),
        Tile(
            Figure(f"{state.done:,} of {state.ranges:,}", state.done, "ranges-done"),
            "ranges done",
            f"{share(done, state.profiles)} of the profiles",
        ),
        Tile(
            Figure(count(state.copied), state.copied, "files-copied"),
            "files copied",
            f"{facts.tally.files['already_there']:,} were there already",
        ),
        Tile(
            Figure(size(state.bytes), state.bytes, "bytes-copied"),
            "bytes copied",
            f"{size(facts.tally.held / max(1, facts.tally.verified))} a file",
        ),
        Tile(
            Figure(f"{happened.files_per_second:,.0f}/s", round(happened.files_per_second, 3), "files-per-second"),
            "files a second",
            f"at work, {duration(happened.at_work)} in all; {happened.best:,.0f}/s at best",
        ),
        Tile(
            Figure(count(letters.letters_waiting), letters.letters_waiting, "letters-waiting"),
            "dead letters wait",
            f"{letters.letters_waived:,} waived",
        ),
    ]


def pictures(facts: Facts) -> list[Picture]:
    """To be looked at, and not read."""
    rows = over_time(facts.course.rows, facts.course.seconds, facts.states)
    files = rows.drop(columns="profiles", errors="ignore")
    return [
        _picture("Profiles, files and bytes in S3 over time", lambda theme: plots.progress(rows, theme)),
        _picture("Files a second over time", lambda theme: plots.rate(files, theme)),
        _picture("Files by outcome", lambda theme: plots.outcomes(facts.tally.by_outcome(), theme)),
        _picture("Files by size", lambda theme: plots.sizes(facts.tally.by_size(), theme)),
        _picture("Time by stage", lambda theme: plots.stages(_stages(facts), theme)),
    ]


def sections(facts: Facts, kept: Sequence[Kept]) -> list[Section]:
    """In the order in which somebody asks."""
    return [
        _outcomes(facts),
        *_left(facts),
        _letters(facts),
        _time(facts),
        cost_section(facts),
        _evidence(facts),
        _cutover(facts),
        _inventory(facts),
        _removed(facts),
        *_archived(facts),
        _acts(facts),
        _files(kept),
        _settings(facts),
        _versions(facts),
    ]


def _picture(alternative: str, draw: Callable[[plots.Theme], str]) -> Picture:
    return Picture(
        alternative, *(plots.as_address(draw(theme._replace(width=_WIDTH))) for theme in (plots.LIGHT, plots.DARK))
    )


def _stages(facts: Facts) -> dict[str, float]:
    return {stage: seconds for stage, seconds in facts.totals.seconds.items() if stage != _PAUSED}


def _outcomes(facts: Facts) -> Section:
    tally, total = facts.tally, sum(facts.tally.files.values())
    rows: list[Row] = [
        [
            Code(name),
            Figure(count(files), files, f"outcome-{name.replace(' ', '-')}"),
            share(files, total),
            size(tally.bytes[name]) if tally.bytes[name] else NONE,
            f"{tally.tries[name] / files:.2f}",
            _remedy(name, facts),
        ]
        for name, files in tally.by_outcome()
    ]
    head = ["outcome", "files", "share", "bytes", "tries a file", "what to do"]
    return Section(
        "Files by outcome",
        [f"{plural(total, 'different file')} were wanted; a file that several profiles share counts once."],
        [Table(head, rows, numbers={1, 2, 3, 4})] if rows else [],
    )


def _remedy(outcome: str, facts: Facts) -> str:
    if outcome == _NOT_TRIED:
        return "Its range is still to run."
    letters = next((letter for letter in facts.standing.letters if letter.outcome == outcome), None)
    if letters is not None and letters.waived and not letters.waiting:
        return WAIVED
    return REMEDIES[Outcome(outcome)] if outcome in set(Outcome) else ""


def _left(facts: Facts) -> list[Section]:
    rows: list[Row] = []
    for state in facts.states:
        report = state.report or {}
        if report.get("waiting"):
            why = ", ".join(f"{number:,} {reason}" for reason, number in report.get("waiting_for", {}).items())
            rows.append([Code(state.key), f"{report['waiting']:,}", why, moment(state.ended_at)])
    if not rows:
        return []
    return [
        Section(
            "Ranges with profiles left",
            ["As their newest runs ended."],
            [Table(["range", "profiles", "why", "ended"], rows, numbers={1})],
        )
    ]


def _letters(facts: Facts) -> Section:
    now = facts.standing
    classes: list[Row] = [
        [
            Code(letter.outcome.value),
            Figure(count(letter.waiting), letter.waiting, f"waiting-{letter.outcome.value}"),
            Figure(count(letter.waived), letter.waived, f"waived-{letter.outcome.value}"),
            moment(letter.newest),
        ]
        for letter in now.letters
    ]
    accepted = _accepted(facts.letters)
    if not classes:
        said = ["There is none: every file that some profile needs was copied."]
        return Section("Dead letters and waivers", said, accepted)
    waiting: list[Row] = [
        [*_named(row), row.message, f"{row.attempts:,}", Code(row.a_profile)] for row in facts.letters.waiting
    ]
    waived: list[Row] = [
        [*_named(row), row.waived_by or "", row.waived_why or "", moment(row.waived_at)] for row in facts.letters.waived
    ]
    return Section(
        "Dead letters and waivers",
        ["Files that could not be copied. References to them still lead to the source."],
        [
            Table(["class", "waiting", "waived", "newest"], classes, numbers={1, 2}),
            *_some("Waiting for somebody", ["file", "class", "message", "tries", "a profile"], waiting,
                   now.letters_waiting, numbers={3}),
            *_some("Waived: their profiles are done without them", ["file", "class", "who", "why", "when"], waived,
                   now.letters_waived),
            *accepted,
        ],
    )  # fmt: skip


def _accepted(letters: Letters) -> list[Table]:
    rows: list[Row] = [
        [Code(f"{row.container}/{row.blob}"), Code(row.md5.hex() if row.md5 else ""), row.by, row.why, moment(row.at)]
        for row in letters.accepted
    ]
    if not rows:
        return []
    more = letters.accepted_files - len(rows)
    caption = "Copied as they are, though their stored Content-MD5 is that of other bytes: proven from our read to S3"
    note = f"{more:,} more are in the ledger's table `accepted`." if more else ""
    return [Table(["file", "MD5 of its bytes", "who", "why", "when"], rows, caption=caption, note=note)]


def _named(row: LetterRow) -> list[Code]:
    return [Code(shortened(f"{row.container}/{row.blob}")), Code(row.outcome)]


def _some(
    caption: str,
    head: list[str],
    rows: Sequence[Row],
    total: int,
    numbers: set[int] | None = None,
) -> list[Table]:
    note = f"{total - len(rows):,} more are in the Parquet file." if total > len(rows) else ""
    return [Table(head, rows, caption=caption, note=note, numbers=numbers or set())] if rows else []


def _time(facts: Facts) -> Section:
    state, spent, (began, ended) = facts.standing.status, facts.totals.spent, facts.period
    rows: list[Row] = [
        ["period", f"{moment(began)} to {moment(ended)}"],
        ["copying", f"{duration(facts.course.at_work)}, in which files ended"],
        [
            "processor",
            f"{duration(sum(state.cpu_seconds.values()))} in all stages of the newest runs together",
        ],
        ["retries", f"{spent.retries:,}: tries beyond the first of a file and run"],
        ["throttled by the source", f"{spent.source_throttles:,} times"],
        ["throttled by the target", f"{spent.target_throttles:,} times"],
    ]
    paused = facts.totals.seconds.get(_PAUSED, 0.0)
    if paused:
        rows.append(["paused", f"{duration(paused)} in all runs together"])
    return Section(
        "Time, throttles and retries",
        ["Throttles, retries, pauses and the stages' seconds are those of all runs that ended."],
        [Table(["", ""], rows)],
    )


def _evidence(facts: Facts) -> Section:
    tally, totals = facts.tally, facts.totals
    proven = (
        f"{counted(tally.verified, 'file', 'is', 'are')} proven: the MD5 of the bytes read was compared with the"
        " source's Content-MD5 where the blob has one, and with what S3 confirmed; S3 checked a SHA-256 on the way in,"
        f" which the ledger does not keep. The ledger holds the MD5 of {tally.with_digest:,} of them."
        f" {counted(tally.ours, 'object', 'was', 'were')} made by this migration."
    )
    if not totals.audited:
        return Section("Evidence", [proven, "No range was audited."])
    audited = (
        f"{totals.audited:,} of {plural(len(facts.states), 'range')} were audited,"
        f" the last one on {moment(totals.audited_at)}: every reference was looked at again."
    )
    rows: list[Row] = [[Code(name), count(number)] for name, number in totals.findings.items() if number]
    return Section(
        "Evidence", [proven, audited], [Table(["finding of the newest audits", "references"], rows, numbers={1})]
    )


def _cutover(facts: Facts) -> Section:
    stand = facts.stand
    said = [f"The present phase is {stand.phase}."]
    if stand.facts.switched_at is not None:
        written = stand.uploads
        said.append(
            f"Uploads go to S3 since {moment(stand.facts.switched_at)};"
            f" {counted(written.blobs, 'blob', 'was', 'were')} written to the source after that,"
            " by the newest listing."
        )
    tables = []
    if facts.entered:
        rows: list[Row] = [[Code(row.phase), moment(row.at), row.who, row.why] for row in facts.entered]
        tables.append(Table(["phase", "entered", "who", "why"], rows))
    if stand.holds:
        tables.append(
            Table([f"what holds {stand.phase.next}", "what to do"], [(hold.what, hold.remedy) for hold in stand.holds])
        )
    return Section("Cut-over", said, tables)


def _inventory(facts: Facts) -> Section:
    found, listing = facts.found, facts.listing
    if found is None or listing is None:
        return Section("Inventory of the source", ["The source was not listed."])
    rows: list[Row] = [
        ["held by the source", count(found.blobs), size(found.size)],
        ["to move, and can be copied", count(found.copyable), size(found.bytes)],
        ["to move, and missing", count(found.missing), ""],
        ["to move, and archived", count(found.archived_needed), ""],
        ["to move, and too long for a key", count(found.too_long), ""],
        ["referred to by nobody", count(found.orphans), size(found.orphan_bytes)],
        ["referred to by nobody, and too young to tell", count(found.young), ""],
        ["referred to by deleted profiles alone", count(found.only_deleted), ""],
        ["archived, whoever refers to them", count(found.archived), size(found.archived_bytes)],
    ]
    said = (
        f"Listed on {moment(found.listed_at)}, compared with the references as counted on {moment(found.counted_at)}."
    )
    tables = [Table(["blobs", "", ""], rows, numbers={1, 2})]
    if facts.totals.orphans:
        copied: list[Row] = [[Code(name), count(number)] for name, number in facts.totals.orphans.items()]
        tables.append(Table(["orphans to copy", "blobs"], copied, numbers={1}))
    return Section("Inventory of the source", [said], tables)


def _removed(facts: Facts) -> Section:
    done = facts.removed
    said = []
    if not (done.deleted or done.archived or done.begun):
        said.append("Nothing was removed from the source.")
    tables = []
    if done.deleted or done.archived or done.begun:
        rows: list[Row] = [
            ["deleted", Figure(count(done.deleted), done.deleted, "blobs-deleted")],
            ["archived", Figure(count(done.archived), done.archived, "blobs-archived")],
            ["bytes of both", size(done.bytes)],
            ["first", moment(done.first_at)],
            ["last", moment(done.last_at)],
        ]
        if done.begun:
            rows.append(["begun, and not known to be done", count(done.begun)])
        tables.append(Table(["blobs of the source", ""], rows, numbers={1}))
    if facts.totals.erased:
        what = counted(facts.totals.erased, "object", "was", "were")
        said.append(f"{what} removed from S3, because users had deleted what they showed.")
    return Section("Removed", said, tables)


def _archived(facts: Facts) -> list[Section]:
    if not facts.archives:
        return []
    said = (
        "Rows of finished ranges were exported to these files before, and dropped from the ledger. Their files are in "
        "no other table of this report; profiles, ranges, files copied and bytes count them."
    )
    rows: list[Row] = [
        [Code(item.name), count(item.ranges), count(item.rows), moment(item.at), Code(item.sha256)]
        for item in facts.archives
    ]
    head = ["file", "ranges", "rows", "when", "SHA-256"]
    return [Section("Archived before", [said], [Table(head, rows, numbers={1, 2})])]


def _acts(facts: Facts) -> Section:
    rows: list[Row] = [[moment(act.at), act.who, Code(act.what), act.why, _details(act)] for act in facts.acts]
    if not rows:
        return Section("Acts of operators", ["There were none."])
    more = facts.totals.acts - len(rows)
    note = f"{more:,} older ones are in the ledger." if more else ""
    return Section(
        "Acts of operators", ["The newest first."], [Table(["when", "who", "what", "why", "details"], rows, note=note)]
    )


def _details(act: Act) -> str:
    return ", ".join(f"{name}: {value}" for name, value in act.details.items() if value not in (None, ""))


def _files(kept: Sequence[Kept]) -> Section:
    if not kept:
        return Section("Files of this report", ["This page was made alone."])
    rows: list[Row] = [
        [Code(item.name), item.what, count(item.rows), size(item.bytes), Code(item.sha256, digest=True)]
        for item in kept
    ]
    return Section(
        "Files of this report",
        [f"All of one moment of the ledger, as this page is. sha256sum -c {SUMS} compares them with their digests."],
        [Table(["file", "holds", "rows", "bytes", "SHA-256"], rows, numbers={2, 3})],
    )


def _settings(facts: Facts) -> Section:
    given: list[Row] = [[Code(item.name), item.value] for item in facts.settings if item.given]
    others: list[Row] = [[Code(item.name), item.value] for item in facts.settings if not item.given]
    return Section(
        "Settings",
        ["As they were when this report was made. Secrets, and what may hold one, are left out."],
        [Table(["given", ""], given), Table(["by default", ""], others)],
        dense=True,
    )


def _versions(facts: Facts) -> Section:
    return Section(
        "Versions",
        ["Of the process that made this report."],
        [Table(["", ""], [[name, version] for name, version in facts.versions.items()])],
        dense=True,
    )
