"""Looking after a migration, for commands and assets alike: sweeping, erasing, auditing, rolling back."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from itertools import chain

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.postgres.profiles import PostgresProfiles
from migration_pipeline.core.audit import Audited, audit_range
from migration_pipeline.core.control import Say
from migration_pipeline.core.decommission import Removal, Rules, decommission
from migration_pipeline.core.erase import Erasure, erase
from migration_pipeline.core.model import Profile
from migration_pipeline.core.ports import Dropped
from migration_pipeline.core.removal_ports import How
from migration_pipeline.core.removal_report import Decommissioned
from migration_pipeline.core.rollback import RolledBack, roll_back_range
from migration_pipeline.core.sweep import Swept, sweep_files, sweep_profiles, sweep_unowned
from migration_pipeline.cutover import FULL_SWEEP, close_removals, removal_holds
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger, open_profiles, open_removal, open_stores

_BATCH = 200
_OVERLAP = timedelta(minutes=10)
"""A transaction that long may commit a time that a sweep has passed already."""
DOCUMENTS = "documents"
"""What sweeps call those of Firebase."""
_SINCE, _AFTER = "swept until", "swept up to"


def sweep(settings: Settings, *, full: bool = False) -> Swept:
    """Look for what came late, and ask for runs of the ranges concerned.

    Args:
        settings: the migration.
        full: look at all profiles, and compare all copied files with the source; else at profiles written since the
            last sweep, where `updated_at` tells, or at the next `sweep.profiles_per_sweep` of them.
    """
    with (
        open_stores(settings) as stores,
        closing(open_profiles(settings)) as profiles,
        closing(open_ledger(settings, create=True)) as ledger,
    ):
        began = ledger.now()
        if full:
            swept = sweep_profiles(_all(profiles), stores)
            sweep_unowned(stores, swept)
            sweep_files([item.key for item in ledger.ranges()], stores, swept)
            ledger.remember(FULL_SWEEP, {"began_at": began.isoformat(), **swept.counters()})
        elif settings.database.profiles.updated_at is not None:
            since, unseen = ledger.remembered(_SINCE), unseen_by_time(settings)
            if since is None:
                swept = sweep_profiles(_all(profiles), stores)
            else:
                newer = profiles.written_since(datetime.fromisoformat(since) - _OVERLAP)
                # What no time tells of is found as its profile's turn comes.
                in_turn = _next(profiles, ledger, settings.sweep.profiles_per_sweep) if unseen else ()
                swept = sweep_profiles(chain(newer, in_turn), stores)
                swept.unseen = unseen
            ledger.remember(_SINCE, began.isoformat())
        else:
            swept = sweep_profiles(_next(profiles, ledger, settings.sweep.profiles_per_sweep), stores)
        return swept


def unseen_by_time(settings: Settings) -> list[str]:
    """What can be written without a time that tells of it, where sweeps go by `updated_at`; in words."""
    database = settings.database
    if database.profiles.updated_at is None:
        return []
    unseen = [f"rows of {item.table}, which has no updated_at" for item in database.related if not item.updated_at]
    return [*unseen, DOCUMENTS] if settings.firebase.kind != "none" else unseen


def _all(profiles: PostgresProfiles) -> Iterator[Sequence[Profile]]:
    after = None
    while batch := profiles.following(after, _BATCH):
        yield batch
        after = batch[-1].profile_id


def _next(profiles: PostgresProfiles, ledger: PostgresLedger, most: int) -> Iterator[Sequence[Profile]]:
    """From where the last sweep ended; from the beginning after the last profile."""
    after, seen = ledger.remembered(_AFTER), 0
    while seen < most:
        batch = profiles.following(after, min(_BATCH, most - seen))
        after = batch[-1].profile_id if batch else None
        yield batch
        # Kept only once these were looked at.
        ledger.remember(_AFTER, after)
        seen += len(batch)
        if not batch:
            return


def to_erase(settings: Settings) -> Sequence[Dropped]:
    """Copies that would be looked at for erasing."""
    with closing(open_ledger(settings)) as ledger:
        return ledger.dropped(seconds=_grace(settings))


def erase_dropped(settings: Settings) -> Erasure:
    """Remove copies of ours that nobody refers to, after `erase.after_hours`."""
    with open_stores(settings) as stores:
        return erase(stores, seconds=_grace(settings))


def _grace(settings: Settings) -> float:
    return settings.erase.after_hours * 3600


def audit(settings: Settings, range_key: str, *, read: bool = False) -> Audited:
    """Look at every reference of a range again."""
    with open_stores(settings) as stores:
        return audit_range(range_key, stores, read=read)


def roll_back(
    settings: Settings, range_key: str, *, by: str = "", why: str = "", without_queries: bool = False
) -> RolledBack:
    """Re-point a range's references to the source, and record the act."""
    close_removals(settings)
    with open_stores(settings) as stores:
        done = roll_back_range(range_key, stores, without_queries=without_queries)
    with closing(open_ledger(settings)) as ledger:
        details = {"range": range_key, "profiles": done.profiles - len(done.left), "left": len(done.left)}
        ledger.control.note("rollback", by=by, why=why, details=details)
    return done


def remove_from_source(
    settings: Settings,
    range_keys: Sequence[str],
    *,
    apply: bool,
    who: str = "",
    why: str = "",
    say: Say = lambda _: None,
) -> Decommissioned:
    """Remove blobs of ranges from the source, or say which would be; see `decommission`."""
    rules = settings.decommission
    with open_stores(settings) as stores, closing(open_ledger(settings, create=True)) as ledger:
        return decommission(
            range_keys,
            stores,
            Removal(ledger.removal, lambda: open_removal(settings)),
            Rules(How(rules.how), rules.max_delete, rules.per_second, rules.require_soft_delete),
            holds=[hold.what for hold in removal_holds(settings, ledger)],
            apply=apply,
            who=who,
            why=why,
            say=say,
        )
