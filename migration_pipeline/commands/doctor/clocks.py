"""Whether this machine's clock agrees with the stores': signatures and SAS hold for fifteen minutes around theirs."""

import asyncio
from collections.abc import Sequence

from migration_pipeline.adapters.http.probe import seconds_ahead
from migration_pipeline.commands.doctor.findings import Findings, What, failure, ok, warning
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings
from migration_pipeline.stores import network_of

_WARNED, _REFUSED = 60, 15 * 60
"""Seconds; the latter is Amazon's RequestTimeTooSkewed, and about what Azure bears."""


def clocks(settings: Settings) -> Findings:
    """Both stores', by the Date of an answer to a request without credentials."""
    target = settings.target.endpoint_url or f"https://s3.{settings.target.region}.amazonaws.com"

    network = network_of(settings)

    async def ask() -> Sequence[float | None]:
        return await asyncio.gather(*(seconds_ahead(url, network) for url in (settings.source.account_url, target)))

    for what, ahead in zip((What.SOURCE_CLOCK, What.TARGET_CLOCK), run(ask()), strict=True):
        if ahead is None:
            yield warning(what, "the store does not say what time it is.", "Look at that store's own line.")
            continue
        said = f"{abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} the store's"
        if abs(ahead) < _WARNED:
            yield ok(what, "agrees with the store's")
        elif abs(ahead) < _REFUSED:
            yield warning(what, f"ours is {said}.", _REMEDY)
        else:
            yield failure(what, f"ours is {said}: requests are refused from 900 s on.", _REMEDY)


_REMEDY = "Have this machine's clock set by NTP."
