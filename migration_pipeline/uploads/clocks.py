"""Whether this machine's clock agrees with the store's.

A signature says when it was made. S3 refuses a URL that it takes to be of the future by more than 15 minutes, and each
store ends a URL by its own clock: URLs for ten minutes are dead at once if their signer is slow by ten minutes.
"""

import http.client
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from migration_pipeline.uploads.errors import StoreTrouble, UploadsError

TOLERATED = timedelta(minutes=15)
"""Amazon S3 API Reference, "Error responses", RequestTimeTooSkewed; Azure reckons with as much."""
_SHARE_OF_LIFE = 5
_SECONDS = 10.0

Clock = Callable[[], datetime]


class ClockSkewed(UploadsError):  # noqa: N818 - says what the clock is
    """This machine's clock is too far from the store's for the URLs that it signs."""


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


def check_clock(store_url: str, expires_in: timedelta, clock: Clock) -> timedelta:
    """How far this machine's clock is ahead of the store's, by the `Date` of its answer.

    Args:
        store_url: any URL of the store; it is asked without credentials, and any answer will do.
        expires_in: how long URLs are good for; a fifth of it may be lost to the clock.
        clock: this machine's.

    Raises:
        ClockSkewed: with the way out.
        StoreTrouble: the store did not answer.
    """
    ahead = clock() - _date_of(store_url)
    if abs(ahead) > min(TOLERATED, expires_in / _SHARE_OF_LIFE):
        seconds = int(ahead.total_seconds())
        raise ClockSkewed(
            f"this machine's clock is {abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} the store's: URLs "
            f"for {int(expires_in.total_seconds())} s would "
            + ("be good for longer, or be refused as not valid yet" if seconds > 0 else "end too early")
            + ". Set the clock by NTP (chrony, systemd-timesyncd)."
        )
    return ahead


def _date_of(url: str) -> datetime:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=_SECONDS)
    try:
        connection.request("HEAD", parts.path or "/")
        date = connection.getresponse().getheader("Date")
        return parsedate_to_datetime(date or "")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StoreTrouble(f"the store's clock cannot be read: {type(error).__name__}") from None
    finally:
        connection.close()
