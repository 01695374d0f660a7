"""Alerts on their way: each waits for each channel by itself until that channel takes it.

What waits is plain JSON by channel, kept by the caller whenever it changes. A process that ends between a delivery and
keeping that tells the same alert twice; none is ever lost but those that a channel did not take for so long that
`MOST` newer ones wait.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from migration_pipeline.core.alert_words import Alert

MOST = 100
"""Alerts that wait for one channel; the oldest make room."""

Waiting = Mapping[str, Sequence[Any]]


class Channel(Protocol):
    """Where alerts go; see `adapters.alert_channels`."""

    key: str
    name: str
    trouble: str

    def send(self, alert: Alert) -> bool:
        """Whether it was taken; raises nothing."""


def put(waiting: Waiting, new: Sequence[Alert], channels: Sequence[Channel]) -> dict[str, list[Any]]:
    """What waits with the new alerts behind. Channels that are no more are forgotten; a new one begins with these."""
    kept = [alert.as_json() for alert in new]
    return {channel.key: [*waiting.get(channel.key, ()), *kept][-MOST:] for channel in channels}


def deliver(
    waiting: dict[str, list[Any]],
    channels: Sequence[Channel],
    keep: Callable[[], None],
    *,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Send to each channel what waits for it, oldest first, until it refuses one; the rest waits on.

    Args:
        waiting: shortened by what was taken.
        channels: to send to.
        keep: called after each that was taken.
        seconds: for all channels together, each having its part; one that is being sent is not cut off.
        clock: seconds.

    Returns:
        What there is to say, a line for each channel with anything to send.
    """
    said = []
    for channel in channels:
        mine, sent, until = waiting[channel.key], 0, clock() + seconds / len(channels)
        trouble = ""
        while mine and not trouble and clock() < until:
            if channel.send(Alert.from_json(mine[0])):
                del mine[0]
                sent += 1
                keep()
            else:
                trouble = channel.trouble
        if sent or mine:
            left = f", {len(mine)} wait" + (f", for it {trouble}" if trouble else "") if mine else ""
            said.append(f"{channel.name}: {sent} sent{left}")
    return said
