"""Where alerts go: Slack, mail, SNS, webhooks and what else apprise knows, each named by a URL that holds secrets.

A channel is called by the URL's scheme and a digest of the URL. Nothing else of the URL leaves this module: what
apprise logs, and what its HTTP client logs while an alert is sent, is withheld from all handlers.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from migration_pipeline.core.alert_words import Alert, Severity

if TYPE_CHECKING:
    from apprise import Apprise

_DIGITS = 8
_SCHEME = re.compile(r"([a-z][a-z0-9]{1,19})://", re.IGNORECASE)
_HTTP_STATUS = re.compile(r"\berror=(\d{3})\b")
_logged: ContextVar[list[str] | None] = ContextVar("logged while an alert is sent", default=None)


class Channel:
    """One place that alerts go to.

    Attributes:
        key: tells it from others; stays the same while its URL does.
        name: for people.
        trouble: why it did not take the last alert, in words without secrets; empty where it did.
    """

    def __init__(self, url: str) -> None:
        scheme = _SCHEME.match(url)
        self.key = hashlib.sha256(url.encode()).hexdigest()[:_DIGITS]
        self.name = f"{scheme[1].lower() if scheme else 'unknown'} ({self.key})"
        self.trouble = ""
        self._url = url
        self._opened: Apprise | None = None

    def send(self, alert: Alert) -> bool:
        """Whether the channel took it. Gives a slow one some seconds; raises nothing."""
        logged: list[str] = []
        token = _logged.set(logged)
        try:
            taken = self._send(alert)
            refusal = _in_words(logged) if self._opened is not None else "is no URL that apprise can use"
            self.trouble = "" if taken else refusal
        except Exception as error:  # noqa: BLE001 - a hundred services' code; what it raises may quote the URL
            self.trouble = f"failed with {type(error).__name__}"
        finally:
            _logged.reset(token)
        return not self.trouble

    def _send(self, alert: Alert) -> bool:
        # Imported here: half a second that a tick without alerts need not spend.
        from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType  # noqa: PLC0415

        types = {Severity.INFO: NotifyType.INFO, Severity.WARNING: NotifyType.WARNING}
        if self._opened is None:
            # Kept open, so that apprise spaces several alerts as the service asks for.
            opened = Apprise(asset=AppriseAsset(app_id="migration_pipeline", app_desc="Migration", app_url=""))
            if not opened.add(self._url):
                return False
            self._opened = opened
        done = self._opened.notify(
            title=alert.title,
            body=alert.body,
            # Text: each service then escapes what it would act upon.
            body_format=NotifyFormat.TEXT,
            notify_type=types.get(alert.severity, NotifyType.FAILURE),
        )
        return bool(done)


def channels(urls: Sequence[str]) -> list[Channel]:
    """A channel for each URL; one that is given twice is one."""
    return list({channel.key: channel for channel in map(Channel, urls)}.values())


def _in_words(logged: Sequence[str]) -> str:
    """Of what apprise logged, only what cannot be a secret."""
    text = "\n".join(logged)
    if status := _HTTP_STATUS.search(text):
        return f"answered {status[1]}"
    return "cannot be reached" if "onnection error" in text else "did not take it"


def _withhold(record: logging.LogRecord) -> bool:
    """Whether a record may be logged."""
    logged = _logged.get()
    if logged is not None:
        logged.append(record.getMessage())
    return logged is None and record.name != "apprise"


# A logger's filters come before all handlers, whoever added them. The path of a webhook is its secret, and urllib3
# logs paths.
for _name in ("apprise", "urllib3.connectionpool", "urllib3.poolmanager", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_withhold)
