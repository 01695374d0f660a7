"""Taking stock, for the command and the assets alike: what the source holds, beside what the app refers to."""

import csv
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from migration_pipeline.adapters.azure.inventory_report import Report, read_report
from migration_pipeline.adapters.azure.inventory_rows import Rows, as_csv
from migration_pipeline.adapters.azure.listing import AzureListing, MarkerRefused
from migration_pipeline.adapters.ledger.counts import Counting
from migration_pipeline.adapters.ledger.found import Kept
from migration_pipeline.adapters.ledger.inventory import Listing
from migration_pipeline.adapters.ledger.listings import Begun
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.postgres.profiles import PostgresProfiles
from migration_pipeline.core.alert_words import count as so_many
from migration_pipeline.core.control import Listener, Say
from migration_pipeline.core.copy_file import Copier
from migration_pipeline.core.count import Counted, count, count_unowned
from migration_pipeline.core.each import ask_each, make_sure
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.inventory import Found, Listed
from migration_pipeline.core.migrate import Stores
from migration_pipeline.core.model import CopyResult, ProfileRange, SourceFile, WantedFile
from migration_pipeline.core.text import inert
from migration_pipeline.core.transfer import Transferred, transfer
from migration_pipeline.core.urls import UrlRules
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings
from migration_pipeline.stores import (
    copy_limits,
    open_documents,
    open_index,
    open_ledger,
    open_listing,
    open_source_probe,
    open_stores,
    orphan_rules,
    url_rules,
    what_refers,
)

LISTING = "listing"
_GO_ON_SECONDS = 24 * 3600.0
"""What was cut off longer ago is begun anew: its beginning says too little of today."""
_BATCHES = 10  # of profiles, kept in one transaction
_ASKED_AT_MOST, _ASKED_AT_ONCE, _ASKED_A_TIME = 100_000, 32, 1000
_ORPHANS_A_TIME, _UNOWNED = 5000, 5000


def take_stock(
    settings: Settings, say: Say = lambda _: None, *, report: Sequence[Path] = (), made_at: datetime | None = None
) -> Found:
    """List the source, count all references, and compare. Cut off anywhere, the next call goes on from there.

    Listed first and counted then: a file that is uploaded and referred to meanwhile shows up as missing, and those are
    asked for one by one; the other way round, it would show up as an orphan.

    Args:
        settings: the migration.
        say: told how far it is.
        report: files of an Azure inventory report, or its manifest, to be read instead of listing.
        made_at: when Azure began that, where nothing else says so.

    Raises:
        Fatal: another inventory is under way, or a report or a store is refused; the last inventory stays as it is.
    """
    containers = settings.source.containers
    with closing(open_ledger(settings, create=True)) as ledger, ledger.listings.hold():
        kept = ledger.found.kept()
        if report:
            opened = read_report(report, made_at)
            listed = _done(ledger, kept, opened.name, containers) or read(ledger, opened, containers, say)
        else:
            done = _done(ledger, kept, LISTING, containers)
            listed = done or list_source(ledger, open_listing(settings), containers, say)
        counting = _counted(ledger, settings, kept, listed.began_at, say)
        came_late = _ask_for_missing(ledger, settings, listed.listing_id, say)
        say("comparing")
        found = ledger.found.look(
            containers,
            listed_at=listed.began_at,
            counted_at=counting.began_at,
            before=_orphaned_before(settings, counting.began_at),
            came_late=came_late,
        )
        ledger.found.keep(Kept(found, listed.listing_id, counting.count_id, counting.settings))
    return found


def _done(ledger: PostgresLedger, kept: Kept | None, source: str, containers: Sequence[str]) -> Listing | None:
    """The newest listing, where the one who made it was cut off after it: it need not be made again."""
    newest = ledger.inventory.newest_listing(containers)
    if newest is None or newest.source != source or (kept is not None and kept.listing_id >= newest.listing_id):
        return None
    return newest if _is_fresh(ledger, newest.ended_at) else None


def _counted(ledger: PostgresLedger, settings: Settings, kept: Kept | None, listed_at: datetime, say: Say) -> Counting:
    """A count that began after the listing did: the newest, where nobody has compared it yet, or a new one."""
    newest = ledger.counts.newest()
    if (
        newest is None
        or newest.settings != what_refers(settings)
        or newest.began_at < listed_at
        or (kept is not None and kept.count_id >= newest.count_id)
        or not _is_fresh(ledger, newest.began_at)
    ):
        _count(ledger, settings, say)
        newest = ledger.counts.newest()
    if newest is None:
        raise Fatal("the count is gone.", setting="inventory", remedy="Take stock again.")
    return newest


def _is_fresh(ledger: PostgresLedger, moment: datetime) -> bool:
    return (ledger.now() - moment).total_seconds() < _GO_ON_SECONDS


def list_source(ledger: PostgresLedger, listing: AzureListing, containers: Sequence[str], say: Say) -> Begun:
    """List containers into the ledger."""
    begun = ledger.listings.begin(LISTING, containers, seconds=_GO_ON_SECONDS)
    seen = _Seen(ledger, begun)
    for container in containers:
        where = seen.progress.get(container, {})
        if where.get("ended"):
            continue
        try:
            _list_container(seen, listing, container, where.get("marker"), say)
        except MarkerRefused:
            seen.forget(container)
            _list_container(seen, listing, container, None, say)
    ledger.listings.finish(begun.listing_id)
    return begun


def _list_container(seen: "_Seen", listing: AzureListing, container: str, marker: str | None, say: Say) -> None:
    for page in listing.pages(container, marker):
        progress = {**seen.progress, container: {"marker": page.marker, "ended": page.marker is None}}
        skipped = Counter(seen.skipped) + Counter(page.skipped)
        size = sum(blob.size for blob in page.blobs)
        seen.keep(Rows(as_csv(page.blobs), len(page.blobs), size, progress, skipped))
        say(f"listed {so_many(seen.blobs, 'blob')}, now in {container}")


def read(ledger: PostgresLedger, report: Report, containers: Sequence[str], say: Say) -> Begun:
    """Read a report into the ledger.

    Raises:
        Fatal: the report is broken, or does not cover all containers; nothing of it is kept.
    """
    if report.containers is not None and set(containers) - set(report.containers):
        left_out = ", ".join(sorted(set(containers) - set(report.containers)))
        raise Fatal(f"the report leaves out {left_out}.", setting="--report", remedy="Make one of all containers.")
    newest = ledger.inventory.newest_listing(containers)
    if newest is not None and newest.began_at > report.began_at:
        days = f"{report.began_at:%Y-%m-%d %H:%M} UTC, and the inventory of {newest.began_at:%Y-%m-%d %H:%M} UTC"
        raise Fatal(
            f"the report is of {days}.",
            setting="--report",
            remedy="Take a newer one, or list.",
        )
    begun = ledger.listings.begin(report.name, containers, began_at=report.began_at)
    seen = _Seen(ledger, begun)
    try:
        for rows in report.batches(containers, seen.progress, seen.skipped):
            seen.keep(rows)
            say(f"read {so_many(seen.blobs, 'blob')} of the report")
        ledger.listings.finish(begun.listing_id)
    except Fatal:
        ledger.listings.forget(begun.listing_id)
        raise
    return begun


class _Seen:
    """How far a listing is."""

    def __init__(self, ledger: PostgresLedger, begun: Begun) -> None:
        self._ledger, self._listing_id = ledger, begun.listing_id
        self.progress, self.skipped, self.blobs = dict(begun.progress), dict(begun.skipped), begun.blobs

    def keep(self, rows: Rows) -> None:
        self._ledger.listings.keep(self._listing_id, rows, after=self.progress)
        self.progress, self.skipped = dict(rows.progress), dict(rows.skipped)
        self.blobs += rows.blobs

    def forget(self, container: str) -> None:
        progress = {name: where for name, where in self.progress.items() if name != container}
        self._ledger.listings.forget(self._listing_id, container, progress)
        self.progress = progress


def _count(ledger: PostgresLedger, settings: Settings, say: Say) -> None:
    urls = url_rules(settings)
    counting = ledger.counts.begin(what_refers(settings), seconds=_GO_ON_SECONDS)
    with closing(open_index(settings)) as profiles, open_documents(settings) as documents:
        bounds = profiles.bounds()
        if bounds is None:
            _count_unowned(ledger, profiles, counting, urls)
            ledger.counts.finish(counting.count_id)
            return
        totals, held = counting.totals, list[Counted]()
        # Profiles that come later than now have files that are too young to be orphans.
        everyone = ProfileRange("", 0, counting.after, bounds[1], 0)
        for batch in profiles.read(everyone):
            # Deleted ones too: a profile that is restored brings its document's files back.
            copies = documents.read([profile.profile_id for profile in batch])
            held.append(count(batch, copies, urls, totals))
            if len(held) == _BATCHES:
                counting, held = ledger.counts.keep(counting, held, totals), []
                say(f"counted the references of {so_many(totals.profiles, 'profile')}")
        if held:
            counting = ledger.counts.keep(counting, held, totals)
        _count_unowned(ledger, profiles, counting, urls)
    say(f"counted the references of {so_many(totals.profiles, 'profile')}")
    ledger.counts.finish(counting.count_id)


def _count_unowned(ledger: PostgresLedger, profiles: PostgresProfiles, counting: Counting, urls: UrlRules) -> None:
    """What rows name whose profile is gone is nobody's orphan."""
    unowned = count_unowned(profiles.unowned(), urls)
    while some := list(islice(unowned, _UNOWNED)):
        ledger.counts.keep_more(counting, some)


def _ask_for_missing(ledger: PostgresLedger, settings: Settings, listing_id: int, say: Say) -> int:
    """Ask the source for files that the listing has not: they may have come since; return how many had."""
    after, asked, found = None, 0, 0
    while asked < _ASKED_AT_MOST:
        missing = ledger.found.missing(settings.source.containers, after=after, limit=_ASKED_A_TIME)
        if not missing:
            break
        there = run(_ask(settings, [file for _, file in missing]))
        if there:
            ledger.listings.add(listing_id, there)
        after, asked, found = missing[-1][0], asked + len(missing), found + len(there)
        say(f"asked for {so_many(asked, 'file')} missing in the listing")
    return found


async def _ask(settings: Settings, files: Sequence[SourceFile]) -> list[Listed]:
    async with open_source_probe(settings) as source:
        answers = await ask_each(files, source.look, at_once=_ASKED_AT_ONCE)
    return [blob for blob in answers.values() if blob is not None]


class OrphansKept(NamedTuple):
    """A file with all orphans, and how many these are."""

    path: Path
    orphans: int


def list_orphans(settings: Settings, folder: Path) -> OrphansKept:
    """Write what nobody refers to into a CSV file; there is either all of it or none.

    Raises:
        Fatal: there is no inventory yet, or the folder takes no file.
    """
    with closing(open_ledger(settings)) as ledger:
        kept = _kept(ledger, settings)
        path = folder / f"orphans-{kept.found.counted_at:%Y%m%dT%H%M%SZ}.csv"
        try:
            return OrphansKept(path, _write(ledger, settings, kept, path))
        except OSError as error:
            raise Fatal(f"{path}: {error.strerror}.", setting="--folder", remedy="Name another folder.") from None


def _write(ledger: PostgresLedger, settings: Settings, kept: Kept, path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".orphans-", suffix=".csv")
    before, after, written = _orphaned_before(settings, kept.found.counted_at), None, 0
    try:
        with os.fdopen(handle, "w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["file", "bytes", "tier", "written_at", "md5"])
            while rows := ledger.found.orphans(
                settings.source.containers, before=before, after=after, limit=_ORPHANS_A_TIME
            ):
                for _, file, size, tier, written_at, md5 in rows:
                    at = written_at.astimezone(UTC).isoformat()
                    writer.writerow([inert(str(file)), size, tier or "", at, md5.hex() if md5 else ""])
                after, written = rows[-1][0], written + len(rows)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return written


def copy_orphans(settings: Settings, say: Say = lambda _: None) -> Transferred:
    """Copy what nobody refers to under `inventory.orphan_prefix`, verified as everything is; what was copied stays.

    Raises:
        Fatal: there is no inventory yet, or a store refuses us.
    """
    rules, done = orphan_rules(settings), Transferred()
    with closing(open_ledger(settings)) as ledger, ledger.listings.hold(), open_stores(settings) as stores:
        kept = _kept(ledger, settings)
        listener = Listener(ledger.orphans, stores.standing, say)
        before, after = _orphaned_before(settings, kept.found.counted_at), None
        while left := ledger.orphans.left(
            settings.source.containers, before=before, after=after, limit=_ORPHANS_A_TIME
        ):
            listener.wait()
            done = done.plus(_copied(settings, stores, rules, ledger, [item for _, item in left], listener))
            after = left[-1][0]
            say(f"copied {so_many(done.copied, 'orphan')}, {done.failed:,} failed")
    return done


def _copied(
    settings: Settings,
    stores: Stores,
    rules: UrlRules,
    ledger: PostgresLedger,
    wanted: Sequence[WantedFile],
    listener: Listener,
) -> Transferred:
    def record(results: Sequence[CopyResult]) -> None:
        ledger.orphans.record(results, [rules.unchecked_key_of(item.file) for item in results])

    async def copy_all() -> Transferred:
        async with stores.open_byte_stores() as (source, target):
            await make_sure(source, target)
            return await transfer(wanted, Copier(source, target, rules, copy_limits(settings)), record, listener)

    return stores.run(copy_all())


def _kept(ledger: PostgresLedger, settings: Settings) -> Kept:
    kept = ledger.found.kept()
    if kept is None or kept.settings != what_refers(settings):
        raise Fatal(
            "there is no inventory by these settings.",
            setting="inventory",
            remedy="Run `migration-pipeline inventory`.",
        )
    return kept


def _orphaned_before(settings: Settings, counted_at: datetime) -> datetime:
    """An upload comes before its reference: a young blob that nobody refers to may be about to get one."""
    return counted_at - timedelta(hours=settings.inventory.orphan_after_hours)
