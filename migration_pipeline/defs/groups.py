"""The asset groups, by what people do, and what a run that removes something has to be told."""

import dagster as dg
from pydantic import Field

PLAN, MIGRATE, VERIFY, CUTOVER, HOUSEKEEPING = "plan", "migrate", "verify", "cutover", "housekeeping"
"""Groups in the order in which people come to need them. "Materialize all" of `migrate` is the main job."""

BY = "Dagster UI"
"""Who did it, where the Launchpad's field was left as it is."""


class Removing(dg.Config):
    """Who removes something, and why; a dry run unless it says `apply: true`.

    `by` has no default, so that no click on "Materialize" starts such a run without its config.
    """

    by: str = Field(description="Your name, for the record. It has no default: nothing is removed by one click.")
    why: str = Field(default="", description="For everybody who wonders later.")
    apply: bool = Field(default=False, description="Do it; else only say what would be done.")

    def checked(self) -> None:
        """Refuse an act that nobody stands for.

        Raises:
            Failure: it is to be done, and `by` is empty.
        """
        if self.apply and not self.by.strip():
            raise dg.Failure("Nobody is named: give your name in `by`.", allow_retries=False)


def by_job(asset: str, **more: object) -> dict[str, object]:
    """What the Launchpad of the asset's job begins with: a dry run, with every field to see."""
    return {"ops": {asset: {"config": {"apply": False, "by": BY, "why": "", **more}}}}


def by_schedule(asset: str, schedule: str) -> dict[str, object]:
    """What a schedule tells the asset: whoever turned it on meant it."""
    return {"ops": {asset: {"config": {"by": f"schedule {schedule}", "apply": True}}}}
