"""When new uploads go to the new store: not yet, already, or from a moment on, for all instances of the app alike."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Self

from migration_pipeline.uploads import clocks
from migration_pipeline.uploads.errors import Misconfigured, NotConfirmed, Refused
from migration_pipeline.uploads.issuer import Uploads
from migration_pipeline.uploads.rules import Wish
from migration_pipeline.uploads.tickets import Confirmed, FormTicket, PutTicket


@dataclass(frozen=True, slots=True)
class Switch:
    """Which store new uploads go to: `before` or `after` the switch, or whichever it is at a moment."""

    at: Literal["before", "after"] | datetime

    def __post_init__(self) -> None:
        if isinstance(self.at, datetime):
            if self.at.utcoffset() is None:
                raise Misconfigured(f"the moment {self.at.isoformat()} has no time zone: write +00:00 or Z after it")
        elif self.at not in ("before", "after"):
            raise Misconfigured(f"the switch is {self.at!r}: must be before, after, or a moment")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From configuration: `before`, `after`, or a moment as `2026-03-01T04:00:00Z`."""
        word = text.strip()
        if word == "before":
            return cls("before")
        if word == "after":
            return cls("after")
        try:
            return cls(datetime.fromisoformat(word))
        except ValueError:
            raise Misconfigured(f"the switch is {word!r}: must be before, after, or a moment with its zone") from None

    def is_over(self, now: datetime) -> bool:
        """Whether new uploads go to the new store at this time."""
        return now >= self.at if isinstance(self.at, datetime) else self.at == "after"


class SwitchedUploads:
    """Two stores and a switch; fulfils `Uploads`.

    Only new tickets follow the switch. What was issued before it is confirmed where it went, and every reference is
    read where it leads.
    """

    def __init__(self, before: Uploads, after: Uploads, switch: Switch, *, clock: clocks.Clock = clocks.now) -> None:
        self._before, self._after, self._switch, self._clock = before, after, switch, clock

    @property
    def current(self) -> Uploads:
        """Where new uploads go now."""
        return self._after if self._switch.is_over(self._clock()) else self._before

    def put_ticket(self, profile: str, wish: Wish) -> PutTicket:
        return self.current.put_ticket(profile, wish)

    def form_ticket(self, profile: str, wish: Wish) -> FormTicket | None:
        return self.current.form_ticket(profile, wish)

    def confirm(self, profile: str, reference: str) -> Confirmed:
        holder = self._holder(reference)
        if holder is None:
            raise NotConfirmed("the reference leads to another store")
        return holder.confirm(profile, reference)

    def discard(self, profile: str, reference: str) -> None:
        holder = self._holder(reference)
        if holder is not None:
            holder.discard(profile, reference)

    def holds(self, reference: str) -> bool:
        return self._holder(reference) is not None

    def download_url(self, reference: str, expires_in: timedelta | None = None) -> str:
        holder = self._holder(reference)
        if holder is None:
            raise Refused("the reference leads to another store")
        return holder.download_url(reference, expires_in)

    def check_clock(self) -> None:
        # One clock, one store: the old one may be away already, and must not keep the app from starting.
        self.current.check_clock()

    def _holder(self, reference: str) -> Uploads | None:
        return next((store for store in (self._after, self._before) if store.holds(reference)), None)
