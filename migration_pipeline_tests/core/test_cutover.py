"""Each gate by its truth table: open, and held by each single thing that can hold it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from migration_pipeline.core.cutover import (
    Examined,
    Facts,
    FullSweep,
    Phase,
    RangeAudit,
    Rules,
    Written,
    back_holds,
    holds,
    late_after,
    removal_holds,
)

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SWITCH = datetime(2026, 3, 1, 2, tzinfo=UTC)
RULES = Rules(longest_upload=DAY, soak=14 * DAY)
EXPIRED, FROZEN, SOAKING = SWITCH + DAY, SWITCH + 4 * DAY, SWITCH + 5 * DAY
OVER = SOAKING + RULES.soak
SOAK_DONE = OVER + DAY
LATE = Written(3, SWITCH + 3 * DAY, ["photos/late.jpg"])

DONE: dict[str, Any] = {"planned": 2, "done": 2, "ended_at": SWITCH + HOUR, "switched_at": SWITCH}
CLEAN = FullSweep(SWITCH + 2 * DAY, 0)
AUDITED = {key: RangeAudit(OVER + HOUR, 0) for key in ("1", "2")}
SOAK: dict[str, Any] = {
    **DONE,
    "phase": Phase.SOAK,
    "entered": {Phase.SOURCE_FROZEN: FROZEN, Phase.SOAK: SOAKING},
    "sweep": FullSweep(OVER + HOUR, 0),
    "listed_at": OVER + HOUR,
    "audits": AUDITED,
}

OPEN: dict[Phase, Facts] = {
    Phase.UPLOADS_SWITCHED: Facts(SWITCH + HOUR, planned=2, switched_at=SWITCH, examined=Examined(SWITCH - DAY, 0)),
    Phase.MIGRATE: Facts(SWITCH + HOUR, Phase.UPLOADS_SWITCHED, audits={"1": RangeAudit(SWITCH, 0)}),
    Phase.SWEEP_CLEAN: Facts(EXPIRED + 2 * DAY, Phase.MIGRATE, sweep=CLEAN, listed_at=EXPIRED + HOUR, **DONE),
    Phase.SOURCE_FROZEN: Facts(FROZEN, Phase.SWEEP_CLEAN, **DONE),
    Phase.SOAK: Facts(
        SOAKING,
        Phase.SOURCE_FROZEN,
        entered={Phase.SOURCE_FROZEN: FROZEN},
        sweep=FullSweep(FROZEN + HOUR, 0),
        listed_at=FROZEN + HOUR,
        **DONE,
    ),
    Phase.DECOMMISSIONED: Facts(SOAK_DONE, removed=9, removed_at=OVER, **SOAK),
}


@dataclass(frozen=True)
class Held:
    """A fact that is not as it should be, and words of the hold that tells it."""

    by: dict[str, Any]
    says: str


SWITCHING = [
    Held({"planned": 0}, "no range is planned"),
    Held({"examined": None}, "never examined"),
    Held({"examined": Examined(SWITCH, 2)}, "2 findings of the write path"),
    Held({"examined": Examined(SWITCH - 8 * DAY, 0)}, "last examined on 2026-02-21"),
    Held({"switched_at": SWITCH + 2 * HOUR}, "which is not yet"),
]
TRIAL = [
    Held({"audits": {}}, "as a trial"),
    Held({"audits": {"1": RangeAudit(SWITCH, 1)}}, "as a trial"),
]
UNFINISHED = [Held({"done": 1}, "1 of 2 ranges is not done")]
CLEANING = [
    *UNFINISHED,
    Held({"now": EXPIRED - HOUR}, "may be good until 2026-03-02 02:00"),
    Held({"sweep": None}, "no full sweep began after"),
    Held({"sweep": FullSweep(EXPIRED - HOUR, 0)}, "no full sweep began after"),
    Held({"ended_at": CLEAN.began_at + HOUR}, "no full sweep began after"),
    Held({"sweep": CLEAN._replace(found=1)}, "found 1 thing that came late"),
    Held({"sweep": CLEAN._replace(busy=1)}, "passed over 1 range"),
    Held({"listed_at": None}, "was not listed after"),
    Held({"listed_at": EXPIRED - HOUR}, "was not listed after"),
    Held({"late": LATE}, "photos/late.jpg"),
]
FREEZING = [*UNFINISHED, Held({"late": LATE}, "after the last upload URL had expired")]
SOAKING_IN = [
    *UNFINISHED,
    Held({"sweep": FullSweep(FROZEN - HOUR, 0)}, "no full sweep began after"),
    Held({"listed_at": FROZEN - HOUR}, "was not listed after"),
    Held({"thawed": LATE}, "after it was frozen"),
]
REMOVING = [
    *UNFINISHED,
    Held({"now": OVER - HOUR}, "the soak lasts until 2026-03-20"),
    Held({"sweep": FullSweep(OVER - HOUR, 0)}, "no full sweep began after"),
    Held({"listed_at": OVER - HOUR}, "was not listed after"),
    Held({"thawed": LATE}, "after it was frozen"),
    Held({"audits": {"1": RangeAudit(OVER, 0)}}, "1 range was not audited"),
    Held({"audits": AUDITED | {"2": RangeAudit(SOAKING - HOUR, 0)}}, "1 range was not audited"),
    Held({"audits": AUDITED | {"2": RangeAudit(OVER, 3)}}, "1 range found references"),
]
ENDING = [
    *REMOVING,
    Held({"in_source": 5}, "5 blobs are still in the source, and proven"),
    Held({"removed_at": OVER + 2 * HOUR}, "was not listed after"),
]
CASES = {
    Phase.UPLOADS_SWITCHED: SWITCHING,
    Phase.MIGRATE: TRIAL,
    Phase.SWEEP_CLEAN: CLEANING,
    Phase.SOURCE_FROZEN: FREEZING,
    Phase.SOAK: SOAKING_IN,
    Phase.DECOMMISSIONED: ENDING,
}


@pytest.mark.parametrize("phase", OPEN)
def test_a_gate_is_open_when_everything_is_as_it_should_be(phase: Phase) -> None:
    assert holds(phase, OPEN[phase], RULES) == []


@pytest.mark.parametrize(("phase", "held"), [(phase, held) for phase, cases in CASES.items() for held in cases])
def test_each_single_thing_holds_its_gate_and_is_named_with_what_to_do(phase: Phase, held: Held) -> None:
    (hold,) = holds(phase, OPEN[phase]._replace(**held.by), RULES)
    assert held.says in hold.what
    assert hold.remedy


@pytest.mark.parametrize("held", REMOVING)
def test_nothing_is_removed_while_one_thing_is_not_as_it_should_be(held: Held) -> None:
    ready = OPEN[Phase.DECOMMISSIONED]
    assert removal_holds(ready, RULES) == []
    (hold,) = removal_holds(ready._replace(**held.by), RULES)
    assert held.says in hold.what


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.SOAK])
def test_blobs_are_removed_in_the_soak_alone(phase: Phase) -> None:
    (hold,) = removal_holds(OPEN[Phase.DECOMMISSIONED]._replace(phase=phase), RULES)
    assert f"the present one is {phase}" in hold.what


@pytest.mark.parametrize("present", Phase)
@pytest.mark.parametrize("to", Phase)
def test_phases_are_entered_in_order(present: Phase, to: Phase) -> None:
    facts = next((facts for facts in OPEN.values() if facts.phase is present), Facts(SWITCH, present))
    in_order = present.next is to
    assert (holds(to, facts, RULES) == []) == in_order


@pytest.mark.parametrize("present", Phase)
@pytest.mark.parametrize("to", Phase)
def test_one_goes_back_only_and_not_behind_what_was_removed(present: Phase, to: Phase) -> None:
    order = list(Phase)
    back = order.index(to) < order.index(present)
    assert (back_holds(to, Facts(SWITCH, present)) == []) == back
    removed = Facts(SWITCH, present, removed=1)
    assert (back_holds(to, removed) == []) == (back and to is Phase.SOAK)


def test_a_blob_that_was_late_long_ago_holds_nothing_for_ever() -> None:
    assert late_after(SWITCH, SWITCH + 2 * HOUR, RULES) == SWITCH + DAY
    assert late_after(SWITCH, SWITCH + 9 * DAY, RULES) == SWITCH + 8 * DAY


def test_uploads_may_have_been_switched_before_anybody_says_so() -> None:
    facts = OPEN[Phase.UPLOADS_SWITCHED]._replace(switched_at=SWITCH - DAY)
    assert holds(Phase.UPLOADS_SWITCHED, facts, RULES) == []
