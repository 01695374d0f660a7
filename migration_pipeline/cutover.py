"""How far the cut-over is, what holds its next gate, and passing it; for commands, assets and alerts alike."""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.ledger.status import is_done
from migration_pipeline.core import cutover as gates
from migration_pipeline.core.cutover import Examined, Facts, FullSweep, Hold, Phase, Rules, Written
from migration_pipeline.core.decommission import Removal, close_what_was_begun
from migration_pipeline.core.errors import Fatal
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger, open_removal, open_stores

FULL_SWEEP, WRITE_PATH = "full sweep", "write path"
"""What the ledger keeps them under."""
_EXAMPLES = 5


class Stand(NamedTuple):
    """Where the cut-over is.

    Attributes:
        holds: what holds the gate to the next phase.
        removal_holds: what holds the removal of blobs.
        uploads: blobs written to the source since the switch, by the newest listing.
    """

    facts: Facts
    holds: Sequence[Hold]
    removal_holds: Sequence[Hold]
    uploads: Written

    @property
    def phase(self) -> Phase:
        """The present one."""
        return self.facts.phase

    def as_json(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        return {
            "phase": self.phase,
            "entered": {phase: self.facts.entered.get(phase) for phase in Phase},
            "switched_at": self.facts.switched_at,
            "next": self.phase.next,
            "holds": [hold._asdict() for hold in self.holds],
            "removal_holds": [hold._asdict() for hold in self.removal_holds],
            "written_since_switch": self.uploads._asdict(),
            "removed": self.facts.removed,
        }


def rules(settings: Settings) -> Rules:
    """How long to wait, by the settings."""
    cutover = settings.cutover
    return Rules(timedelta(hours=cutover.longest_upload_hours), timedelta(days=cutover.soak_days))


def stand(settings: Settings) -> Stand:
    """Look once; what it costs grows with the number of ranges, and not of files, before the soak is over."""
    with closing(open_ledger(settings)) as ledger:
        return stand_of(settings, ledger)


def stand_of(settings: Settings, ledger: PostgresLedger) -> Stand:
    """The same, of a ledger that is open."""
    facts = gather(settings, ledger)
    following = facts.phase.next
    uploads = _written(ledger, facts.switched_at)
    return Stand(
        facts,
        gates.holds(following, facts, rules(settings)) if following else (),
        gates.removal_holds(facts, rules(settings)),
        uploads,
    )


def enter(settings: Settings, phase: Phase, *, by: str, why: str = "", switched_at: datetime | None = None) -> None:
    """Pass the gate to the next phase.

    Args:
        settings: the migration.
        phase: to be entered; the next one.
        by: who enters it.
        why: for the record.
        switched_at: for `uploads_switched`: from when on no upload URL of the old store was issued; else now.

    Raises:
        Fatal: something holds the gate, or somebody else was faster.
    """
    with closing(open_ledger(settings, create=True)) as ledger:
        facts = gather(settings, ledger)
        if switched_at is not None and phase is not Phase.UPLOADS_SWITCHED:
            raise Fatal(f"is kept with {Phase.UPLOADS_SWITCHED} alone.", setting="--at", remedy="Leave it out.")
        if phase is Phase.UPLOADS_SWITCHED:
            facts = facts._replace(switched_at=switched_at or facts.now)
        _refuse(phase, gates.holds(phase, facts, rules(settings)))
        moment = facts.switched_at if phase is Phase.UPLOADS_SWITCHED else None
        ledger.phases.enter(phase, present=facts.phase, by=by, why=why, switched_at=moment)


def go_back(settings: Settings, phase: Phase, *, by: str, why: str) -> None:
    """Go back to an earlier phase: what was found since does not count any more.

    Raises:
        Fatal: it is no earlier one, blobs were removed already, or somebody else was faster.
    """
    close_removals(settings)
    with closing(open_ledger(settings, create=True)) as ledger:
        facts = gather(settings, ledger)
        _refuse(phase, gates.back_holds(phase, facts))
        # Where uploads were switched long ago, they still are.
        moment = facts.switched_at if phase is Phase.UPLOADS_SWITCHED else None
        ledger.phases.enter(phase, present=facts.phase, by=by, why=why, switched_at=moment)


def close_removals(settings: Settings) -> None:
    """Find out how removals ended that a run was cut off at, so that only what is gone keeps anybody from going back.

    Raises:
        Fatal: the source refuses us.
    """
    with closing(open_ledger(settings, create=True)) as ledger:
        if ledger.removal.begun():
            with open_stores(settings) as stores:
                close_what_was_begun(stores, Removal(ledger.removal, lambda: open_removal(settings)))


def removal_holds(settings: Settings, ledger: PostgresLedger) -> Sequence[Hold]:
    """What holds the removal of blobs from the source."""
    return gates.removal_holds(gather(settings, ledger), rules(settings))


def gather(settings: Settings, ledger: PostgresLedger) -> Facts:
    """All that bears on a gate, from the ledger."""
    path, states = ledger.phases.path(), ledger.overview.states()
    listing = ledger.inventory.newest_listing(settings.source.containers)
    examined, swept = ledger.remembered(WRITE_PATH), ledger.remembered(FULL_SWEEP)
    removed, removed_at = ledger.phases.removed()
    late_after = (
        gates.late_after(path.switched_at, listing.began_at, rules(settings))
        if path.switched_at is not None and listing is not None
        else None
    )
    facts = Facts(
        now=ledger.now(),
        phase=path.phase,
        entered=path.entered,
        switched_at=path.switched_at,
        planned=len(states),
        done=sum(is_done(state) for state in states),
        ended_at=max((state.ended_at for state in states if state.ended_at is not None), default=None),
        examined=Examined(datetime.fromisoformat(examined["at"]), examined["failures"]) if examined else None,
        sweep=_full_sweep(swept) if swept else None,
        audits=ledger.phases.audits(),
        listed_at=listing.began_at if listing is not None else None,
        late=_written(ledger, late_after),
        thawed=_written(ledger, path.entered.get(Phase.SOURCE_FROZEN)),
        removed=removed,
        removed_at=removed_at,
    )
    if facts.phase is not Phase.SOAK or gates.removal_holds(facts, rules(settings)):
        return facts
    # Asked for only where everything else is done: it joins all files with the inventory.
    return facts._replace(in_source=ledger.phases.still_in_source(archived=settings.decommission.how == "archive"))


def _full_sweep(swept: dict[str, Any]) -> FullSweep:
    found = swept["late"] + swept["unplanned"] + swept["outdated"]
    return FullSweep(datetime.fromisoformat(swept["began_at"]), found, swept["busy"], swept.get("unowned", 0))


def _written(ledger: PostgresLedger, after: datetime | None) -> Written:
    if after is None:
        return Written()
    newer = ledger.inventory.newer_than(after, limit=_EXAMPLES)
    return Written(newer.count, newer.newest_at, [str(file) for file, _ in newer.examples])


def _refuse(phase: Phase, held: Sequence[Hold]) -> None:
    if held:
        what = "; ".join(hold.what for hold in held)
        remedies = " ".join(dict.fromkeys(hold.remedy for hold in held))
        raise Fatal(f"{phase} cannot be entered: {what}.", setting="PHASE", remedy=remedies)
