"""From the first upload to S3 to the last blob of the source: phases, and the gates between them.

A gate is a pure function of facts. It names each thing that holds it, and what to do about it; there is no way around
one. Ranges may be migrated in any phase; what phases guard is the source, from which nothing may be removed before the
soak is over. ::

    prepare ─► uploads_switched ─► migrate ─► sweep_clean ─► source_frozen ─► soak ─► decommissioned
                                                                  blobs are removed here, once it is over
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from migration_pipeline.core.alert_words import count, counted

_EXAMINED = timedelta(days=7)
"""An examination of the write path that is older says nothing of today's bucket."""


class Phase(StrEnum):
    """How far the cut-over is; entered in this order."""

    PREPARE = "prepare"
    UPLOADS_SWITCHED = "uploads_switched"
    MIGRATE = "migrate"
    SWEEP_CLEAN = "sweep_clean"
    SOURCE_FROZEN = "source_frozen"
    SOAK = "soak"
    DECOMMISSIONED = "decommissioned"

    @property
    def next(self) -> "Phase | None":
        """The one that follows."""
        phases = list(Phase)
        place = phases.index(self) + 1
        return phases[place] if place < len(phases) else None


class Hold(NamedTuple):
    """What holds a gate, and what to do about it."""

    what: str
    remedy: str


class Rules(NamedTuple):
    """From the settings."""

    longest_upload: timedelta
    soak: timedelta


class Examined(NamedTuple):
    """The newest examination of the write path, and how much of it failed."""

    at: datetime
    failures: int


class FullSweep(NamedTuple):
    """The newest full sweep: when it began, and what it found late, newer at the source, or could not look at.

    Attributes:
        unowned: rows that name the source, and whose profile is gone.
    """

    began_at: datetime
    found: int
    busy: int = 0
    unowned: int = 0


class RangeAudit(NamedTuple):
    """The newest audit of a range that holds for it: none was at work there since.

    Attributes:
        bad: references that lead nowhere, to other bytes, or that a flag denies; waived ones aside.
    """

    began_at: datetime
    bad: int


class Written(NamedTuple):
    """Blobs of the source that were written after some moment, by the newest listing."""

    blobs: int = 0
    newest_at: datetime | None = None
    examples: Sequence[str] = ()


class Facts(NamedTuple):
    """All that bears on a gate.

    Attributes:
        entered: when each phase up to the present one was entered.
        switched_at: from when on no upload URL of the old store was issued.
        planned: ranges.
        done: of these; the others wait, are asked to run again, are at work, or never were.
        ended_at: when a range last ended.
        audits: by range, those that hold.
        listed_at: when the newest complete listing of the source began.
        late: written after the last upload URL of the old store had expired, and not longer before the newest listing
            than such a URL lasts.
        thawed: written after the source was frozen.
        in_source: blobs that are proven to be in S3 and that the newest listing still saw in the source.
        removed: blobs removed so far.
        removed_at: when the last was.
    """

    now: datetime
    phase: Phase = Phase.PREPARE
    entered: Mapping[Phase, datetime] = {}
    switched_at: datetime | None = None
    planned: int = 0
    done: int = 0
    ended_at: datetime | None = None
    examined: Examined | None = None
    sweep: FullSweep | None = None
    audits: Mapping[str, RangeAudit] = {}
    listed_at: datetime | None = None
    late: Written = Written()
    thawed: Written = Written()
    in_source: int = 0
    removed: int = 0
    removed_at: datetime | None = None


def holds(to: Phase, facts: Facts, rules: Rules) -> list[Hold]:
    """What holds the gate to a phase; nothing where it may be entered."""
    if to is not facts.phase.next:
        following = facts.phase.next
        first = f"The next phase is {following}." if following else "It is the last phase."
        return [Hold(f"phases are entered in order, and the present one is {facts.phase}", first)]
    return _GATES[to](facts, rules)


def removal_holds(facts: Facts, rules: Rules) -> list[Hold]:
    """What holds the removal of blobs from the source; nothing where it may begin."""
    if facts.phase is not Phase.SOAK:
        return [
            Hold(
                f"blobs are removed in the phase {Phase.SOAK}, and the present one is {facts.phase}",
                "Pass the gates before: migration-pipeline cutover shows them.",
            )
        ]
    began = facts.entered[Phase.SOAK]
    over = began + rules.soak
    held = []
    if facts.now < over:
        held.append(Hold(f"the soak lasts until {_moment(over)}", "Wait; cutover.soak_days says how long."))
    # What was looked at before the end says nothing of what an old client did in the soak.
    return [
        *held,
        *_unfinished(facts),
        *_not_swept(facts, over),
        *_not_listed(facts, over),
        *_thawed(facts),
        *_unaudited(facts, began),
    ]


def back_holds(to: Phase, facts: Facts) -> list[Hold]:
    """What keeps the cut-over from going back to an earlier phase."""
    phases = list(Phase)
    if phases.index(to) >= phases.index(facts.phase):
        return [Hold(f"{to} is not before {facts.phase}", "Name an earlier phase.")]
    if facts.removed and phases.index(to) < phases.index(Phase.SOAK):
        return [
            Hold(
                f"{counted(facts.removed, 'blob', 'was', 'were')} removed from the source",
                "There is no way back before the soak: S3 alone has these files.",
            )
        ]
    return []


def late_after(switched_at: datetime, listed_at: datetime, rules: Rules) -> datetime:
    """From when on a blob is late, as a listing sees it.

    One that was late long ago, and has been moved or found to be nobody's since, must not hold the gate for ever.
    """
    return max(switched_at + rules.longest_upload, listed_at - rules.longest_upload)


def _to_switch(facts: Facts, _: Rules) -> list[Hold]:
    held = []
    if not facts.planned:
        held.append(Hold("no range is planned", "migration-pipeline plan --apply"))
    remedy = "migration-pipeline doctor --write-path"
    if facts.examined is None:
        held.append(Hold("the write path was never examined", remedy))
    elif facts.examined.failures:
        held.append(Hold(f"{facts.examined.failures} findings of the write path are failures", remedy))
    elif facts.now - facts.examined.at > _EXAMINED:
        held.append(Hold(f"the write path was last examined on {_moment(facts.examined.at)}", remedy))
    if facts.switched_at is not None and facts.switched_at > facts.now:
        remedy = "Enter the phase when it has come, and every instance of the app has switched."
        held.append(Hold(f"the switch is at {_moment(facts.switched_at)}, which is not yet", remedy))
    return held


def _to_migrate(facts: Facts, _: Rules) -> list[Hold]:
    if any(not audit.bad for audit in facts.audits.values()):
        return []
    return [
        Hold(
            "no range was migrated and audited without a finding, as a trial",
            "migration-pipeline migrate --first 1, and migration-pipeline audit of that range",
        )
    ]


def _to_call_it_clean(facts: Facts, rules: Rules) -> list[Hold]:
    quiet = (facts.switched_at or facts.now) + rules.longest_upload
    held = _unfinished(facts)
    if facts.now < quiet:
        remedy = "Wait; cutover.longest_upload_hours says how long after the switch."
        return [*held, Hold(f"upload URLs of the old store may be good until {_moment(quiet)}", remedy)]
    since = max(quiet, facts.ended_at) if facts.ended_at is not None else quiet
    return [
        *held,
        *_not_swept(facts, since),
        *_not_listed(facts, quiet),
        *_still_landing(facts),
    ]


def _to_freeze(facts: Facts, _: Rules) -> list[Hold]:
    return [*_unfinished(facts), *_still_landing(facts)]


def _to_soak(facts: Facts, _: Rules) -> list[Hold]:
    since = facts.entered[Phase.SOURCE_FROZEN]
    return [*_unfinished(facts), *_not_swept(facts, since), *_not_listed(facts, since), *_thawed(facts)]


def _to_end(facts: Facts, rules: Rules) -> list[Hold]:
    return removal_holds(facts, rules) or _not_emptied(facts)


def _unfinished(facts: Facts) -> list[Hold]:
    left = facts.planned - facts.done
    remedy = "migration-pipeline migrate, and migration-pipeline dead-letters list for what waits"
    if not left and facts.planned:
        return []
    return [Hold(f"{left:,} of {count(facts.planned, 'range')} {'is' if left == 1 else 'are'} not done", remedy)]


def _not_swept(facts: Facts, since: datetime) -> list[Hold]:
    remedy = "migration-pipeline sweep --full"
    if facts.sweep is None or facts.sweep.began_at < since:
        return [Hold(f"no full sweep began after {_moment(since)}", remedy)]
    held = []
    if facts.sweep.found:
        again = f"Run the ranges that it asked for, then {remedy} again."
        held.append(Hold(f"the newest full sweep found {count(facts.sweep.found, 'thing')} that came late", again))
    if facts.sweep.unowned:
        again = f"Give them a profile, or delete them, then {remedy} again."
        rows = counted(facts.sweep.unowned, "row", "names", "name")
        held.append(Hold(f"{rows} the source without a profile", again))
    if facts.sweep.busy:
        again = f"{remedy}, once no run is at work"
        held.append(Hold(f"the newest full sweep passed over {count(facts.sweep.busy, 'range')} at work", again))
    return held


def _not_listed(facts: Facts, since: datetime) -> list[Hold]:
    if facts.listed_at is not None and facts.listed_at >= since:
        return []
    return [Hold(f"the source was not listed after {_moment(since)}", "migration-pipeline inventory")]


def _still_landing(facts: Facts) -> list[Hold]:
    return _still_written(facts.late, "after the last upload URL had expired")


def _thawed(facts: Facts) -> list[Hold]:
    return _still_written(facts.thawed, "after it was frozen")


def _still_written(written: Written, when: str) -> list[Hold]:
    if not written.blobs:
        return []
    newest = f", the newest at {_moment(written.newest_at)}" if written.newest_at else ""
    example = f": {written.examples[0]}" if written.examples else ""
    return [
        Hold(
            f"{counted(written.blobs, 'blob', 'was', 'were')} written to the source {when}{newest}{example}",
            "Find who writes them and take that right away, then list and sweep again; docs/cutover.md tells more.",
        )
    ]


def _unaudited(facts: Facts, since: datetime) -> list[Hold]:
    audits = [audit for audit in facts.audits.values() if audit.began_at >= since]
    bad = sum(bool(audit.bad) for audit in audits)
    held = []
    if len(audits) < facts.planned:
        missing = facts.planned - len(audits)
        held.append(
            Hold(
                f"{counted(missing, 'range', 'was', 'were')} not audited since the soak began",
                "migration-pipeline audit",
            )
        )
    if bad:
        held.append(
            Hold(f"audits of {count(bad, 'range')} found references that are not right", "migration-pipeline audit")
        )
    return held


def _not_emptied(facts: Facts) -> list[Hold]:
    if facts.removed_at is not None and (facts.listed_at is None or facts.listed_at < facts.removed_at):
        return _not_listed(facts, facts.removed_at)
    if not facts.in_source:
        return []
    return [
        Hold(
            f"{counted(facts.in_source, 'blob', 'is', 'are')} still in the source, and proven to be in S3",
            "migration-pipeline decommission --all --apply, which says what stays; then migration-pipeline inventory",
        )
    ]


_GATES: Mapping[Phase, Callable[[Facts, Rules], list[Hold]]] = {
    Phase.UPLOADS_SWITCHED: _to_switch,
    Phase.MIGRATE: _to_migrate,
    Phase.SWEEP_CLEAN: _to_call_it_clean,
    Phase.SOURCE_FROZEN: _to_freeze,
    Phase.SOAK: _to_soak,
    Phase.DECOMMISSIONED: _to_end,
}


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M %Z}"
