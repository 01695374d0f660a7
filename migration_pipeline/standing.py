"""How the migration stands, in all: what the ledger counts, what operators said, and why runs wait if they do."""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, NamedTuple

from migration_pipeline.adapters.ledger.overview import Act
from migration_pipeline.adapters.ledger.status import Standing, standing
from migration_pipeline.core.control import Heard, Said, decide
from migration_pipeline.core.errors import SettingsError
from migration_pipeline.cutover import Stand, stand_of
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_ledger, sas_ends, standing_orders

_ACTS = 5


class Shown(NamedTuple):
    """What there is to show.

    Attributes:
        said: by operators or the breaker, last.
        paused: why runs wait, in words; `None` where nobody and nothing tells them to.
        acts: of operators, newest first.
        cutover: its phase, and what holds the next gate.
        sas_ends: when the SAS of the source ends; `None` where there is none, or it does not say so.
    """

    standing: Standing
    said: Said
    paused: str | None
    acts: Sequence[Act]
    cutover: Stand
    sas_ends: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing will change by itself any more."""
        state = self.standing.status
        return bool(state.ranges) and not state.working and not state.not_begun

    def as_json(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        now, rate, said = self.standing, self.standing.rate, self.said
        return now.status.as_json() | {
            "at": now.at,
            "workers": now.workers,
            "broke_off": now.broke_off,
            "paused": {"why": self.paused, "by": said.paused_by or None, "at": said.paused_at} if self.paused else None,
            "limits": said.limits._asdict(),
            "rate": {
                "files_per_second": round(rate.files, 3),
                "failed_per_second": round(rate.failed, 3),
                "bytes_per_second": round(rate.bytes, 1),
                "over_seconds": round(rate.seconds, 1),
            },
            "seconds_left": None if now.seconds_left is None else round(now.seconds_left),
            "last_progress_at": now.last_progress,
            "dead_letters": {
                "waiting": now.letters_waiting,
                "waived": now.letters_waived,
                "classes": [
                    letter._asdict() | {"examples": [str(file) for file in letter.examples]} for letter in now.letters
                ],
            },
            "acts": [act._asdict() for act in self.acts],
            "cutover": self.cutover.as_json(),
            "sas_ends_at": self.sas_ends,
        }


def look(settings: Settings) -> Shown:
    """Look once.

    Raises:
        Transient: a database does not answer.
    """
    with closing(open_ledger(settings)) as ledger, standing_orders(settings) as orders:
        now, said = ledger.now(), ledger.control.said()
        # Decided as every run decides it for itself.
        paused = decide(orders, Heard(said, 1, 0, 0), now=now, app_says=orders.app_says()).paused
        acts, cutover = ledger.overview.acts(limit=_ACTS), stand_of(settings, ledger)
        return Shown(standing(ledger.overview, now), said, paused, acts, cutover, sas_ends(settings))


def keep_metrics(settings: Settings, shown: Shown) -> None:
    """Keep the metrics' file up to date where there is to be one.

    Raises:
        SettingsError: it cannot be written.
    """
    from migration_pipeline.adapters import metrics_textfile  # noqa: PLC0415 - most migrations have no such file

    path = settings.metrics.textfile
    if path is None:
        return
    try:
        metrics_textfile.write(path, shown.standing, paused=shown.paused is not None)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror or error}.",
            setting="metrics.textfile",
            remedy="Name a file in a folder that is there, and that this user may write to.",
        ) from None
