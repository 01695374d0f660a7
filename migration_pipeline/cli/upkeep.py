"""The commands that look after a migration: sweep, erase, audit, rollback."""

import sys

import click

from migration_pipeline.cli.control import by as by_whom
from migration_pipeline.cli.show import LEFT, as_json, honest, print_json, print_table, short
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import Fatal, RangeBusy

_SHOWN = 50


@click.command()
@click.option("--full", is_flag=True, help="All profiles, and all copied files against the source.")
@as_json
@honest
def sweep(full: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Find what came late: clear flags that are not true any more, and ask for runs of those ranges."""
    from migration_pipeline import upkeep  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - commands load what they need

    swept = upkeep.sweep(load(), full=full)
    if json_:
        print_json({
            "profiles": swept.looked_at, "late": swept.late, "files": swept.files, "newer": swept.outdated,
            "ranges": sorted(swept.ranges), "busy": swept.busy, "unplanned": swept.unplanned, "unowned": swept.unowned,
            "unseen": list(swept.unseen),
        })  # fmt: skip
    else:
        click.echo(f"{count(swept.looked_at, 'profile')} looked at. Referring to the source again: {swept.late:,}.")
        if full:
            click.echo(f"{swept.files} copied files compared, the source has newer bytes of {swept.outdated}.")
        if swept.busy:
            click.echo(f"Files passed over, for a run is at work: {count(len(swept.busy), 'range')}.")
        if swept.unplanned:
            profiles = count(swept.unplanned, "profile")
            click.echo(f"Of no range, and at the source, too: {profiles}. `migration-pipeline plan --apply` plans one.")
        if swept.unowned:
            click.echo(
                f"Without a profile, and at the source, too: {count(swept.unowned, 'row')} of related tables. Give "
                "each a profile, or delete it. What they name is kept."
            )
        if swept.refused:
            profiles = count(swept.refused, "profile")
            click.echo(f"The database refuses to have the flag of {profiles} cleared; look at its triggers.")
        if swept.unseen:
            click.echo(
                f"No time tells of changes to {' and '.join(swept.unseen)}: these are found as each profile's turn "
                "comes, and by sweep --full."
            )
        if swept.ranges:
            click.echo(f"To run again: migration-pipeline migrate {' '.join(sorted(swept.ranges))}")
    if not swept.clean:
        sys.exit(LEFT)


@click.command()
@click.option("--apply", "apply_", is_flag=True, help="Remove them; without it, they are only listed.")
@as_json
@honest
def erase(apply_: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Remove copies of ours from S3 that nobody refers to any more, in all versions."""
    from migration_pipeline import upkeep  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - commands load what they need

    settings = load()
    if not apply_:
        dropped = upkeep.to_erase(settings)
        if json_:
            print_json([{"file": str(item.file), "profiles": list(item.profiles)} for item in dropped])
            return
        rows = [[short(str(item.file)), ", ".join(map(str, item.profiles))] for item in dropped]
        print_table(["file", "once needed by"], rows)
        copies = count(len(dropped), "copy", "copies")
        click.echo(f"{copies}. Nothing was removed: `migration-pipeline erase --apply` does that.")
        return
    done = upkeep.erase_dropped(settings)
    if json_:
        print_json({
            "files": done.files, "objects": done.objects, "spared": done.spared, "unproven": done.unproven,
            "refused": done.refused, "lost": done.lost, "busy": done.busy,
        })  # fmt: skip
    else:
        copies, objects = (
            count(done.files, "copy", "copies"),
            count(done.objects, "object or version", "objects or versions"),
        )
        click.echo(f"{copies} removed ({objects}); the ledger keeps the record.")
        click.echo(f"Spared, for somebody refers to them after all: {done.spared}.")
        for name in done.unproven:
            click.echo(f"left, for nobody can say whose it is: {short(name)}")
        for refusal in done.refused:
            click.echo(f"left, for S3 refuses to remove it: {refusal}")
        for loss in done.lost:
            click.echo(f"somebody came to refer to it while it was removed, and it cannot be copied again: {loss}")
    if done.unproven or done.refused or done.lost or done.busy:
        sys.exit(LEFT)


@click.command()
@click.argument("ranges", nargs=-1)
@click.option("--read", is_flag=True, help="Read every object and digest it; else S3's word is taken.")
@as_json
@honest
def audit(ranges: tuple[str, ...], read: bool, json_: bool) -> None:  # noqa: FBT001 - click's form
    """Look at every reference of the named RANGES, or of all, again; exit with the worst finding's severity."""
    from migration_pipeline import upkeep  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.commands.migrate import choose  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.core.findings import Finding  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - commands load what they need

    settings = load()
    found = [upkeep.audit(settings, key, read=read) for key in choose(settings, ranges, also_done=True).keys]
    totals = {finding: sum(item.findings[finding] for item in found) for finding in Finding}
    if json_:
        print_json({
            "findings": totals,
            "examples": [
                {"range": item.key, "finding": finding, **example._asdict()}
                for item in found for finding, examples in item.examples.items() for example in examples
            ],
        })  # fmt: skip
    else:
        print_table(["finding", "references"], [[name, str(count)] for name, count in totals.items() if count])
        rows = [
            [finding, "" if example.profile_id is None else str(example.profile_id), short(example.shown), item.key]
            for item in found
            for finding, examples in item.examples.items()
            for example in examples
            if finding.severity
        ]
        if rows:
            worst_first = sorted(rows, key=lambda row: -Finding(row[0]).severity)
            print_table(["finding", "profile", "reference", "range"], worst_first[:_SHOWN])
    sys.exit(max((item.severity for item in found), default=0))


@click.command()
@click.argument("ranges", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every planned range.")
@click.option("--apply", "apply_", is_flag=True, help="Do it; without it, nothing is written.")
@click.option("--without-queries", is_flag=True, help="Also URLs that had a SAS, which is not kept.")
@click.option("--why", default="", help="For the record.")
@by_whom
@as_json
@honest
def rollback(
    ranges: tuple[str, ...],
    all_: bool,  # noqa: FBT001 - click's form
    apply_: bool,  # noqa: FBT001 - as above
    without_queries: bool,  # noqa: FBT001 - as above
    why: str,
    by: str,
    json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Point references of the named RANGES, or of --all, at the source again."""
    from migration_pipeline import upkeep  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.commands.migrate import choose  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.settings import load  # noqa: PLC0415 - commands load what they need

    if not ranges and not all_:
        raise Fatal("names no range.", setting="RANGES", remedy="Name ranges, or give --all.")
    settings = load()
    keys = choose(settings, ranges, also_done=True).keys
    if not apply_:
        click.echo(f"References of {count(len(keys), 'range')} would point at the source again, where it still has")
        click.echo("the file unchanged; flags would be cleared. Copies stay in S3. Nothing was written: add --apply.")
        return
    done, busy = [], []
    for key in keys:
        try:
            done.append(upkeep.roll_back(settings, key, by=by, why=why, without_queries=without_queries))
        except RangeBusy:
            busy.append(key)
    left = [(item.key, waiting) for item in done for waiting in item.left]
    if json_:
        print_json({
            "ranges": len(done), "urls_in_database": sum(i.database.urls for i in done),
            "urls_in_firebase": sum(i.firebase.urls for i in done), "stayed_in_s3": sum(i.stayed for i in done),
            "left": [{"range": key, **w._asdict(), "file": str(w.file)} for key, w in left], "busy": busy,
        })  # fmt: skip
    else:
        urls = sum(item.database.urls for item in done), sum(item.firebase.urls for item in done)
        click.echo(f"URLs that point at the source again: {urls[0]:,} in the database, {urls[1]:,} in Firebase.")
        click.echo(f"{sum(item.stayed for item in done)} references stay: the app uploaded those files to S3 itself.")
        if left:
            rows = [[str(w.profile_id), w.reason, short(str(w.file)), key] for key, w in left[:_SHOWN]]
            print_table(["profile", "why it is left", "file", "range"], rows)
        if busy:
            click.echo(f"Not touched, for a run holds them (paused runs do, too; end those): {' '.join(busy)}")
    if left or busy:
        sys.exit(LEFT)
