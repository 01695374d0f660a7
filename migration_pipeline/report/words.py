"""Figures as people read them."""

from datetime import UTC, datetime

from migration_pipeline.core import alert_words

NONE = "\u2014"
"""Where there is nothing to tell."""
_TENTH = 0.1  # percent


def count(number: float) -> str:
    """A whole number."""
    return f"{number:,.0f}"


plural, counted = alert_words.count, alert_words.counted


def size(octets: float) -> str:
    """Bytes, in decimal units."""
    for power, unit in ((15, "PB"), (12, "TB"), (9, "GB"), (6, "MB"), (3, "KB")):
        if octets >= 10**power:
            return f"{octets / 10**power:,.1f} {unit}"
    return f"{octets:,.0f} B"


def duration(seconds: float) -> str:
    """A length of time, to two or three digits."""
    for length, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def moment(at: datetime | None) -> str:
    """A time, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if at is not None else NONE


def money(amount: float, currency: str) -> str:
    """An amount with its currency; small ones to four places."""
    return f"{amount:,.2f} {currency}" if amount >= 1 or not amount else f"{amount:,.4f} {currency}"


def share(part: float, whole: float) -> str:
    """A part in percent, to a tenth; neither nothing nor all, where it is not."""
    if not whole:
        return NONE
    percent = 100 * part / whole
    if part and percent < _TENTH:
        return f"under {_TENTH} %"
    return f"over {100 - _TENTH} %" if part < whole and percent > 100 - _TENTH else f"{percent:.1f} %"
