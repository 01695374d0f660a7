"""What can be said of the settings alone, and of what they ask of the app's database."""

from contextlib import closing

from migration_pipeline.adapters.alert_channels import channels
from migration_pipeline.adapters.postgres.pause_query import PauseQuery
from migration_pipeline.commands.doctor.findings import Findings, What, failure, ok, warning
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import Fatal
from migration_pipeline.settings import Settings
from migration_pipeline.stores import url_rules, windows


def set_up(settings: Settings) -> Findings:
    """URLs and keys, hours, the query that pauses, where alerts go."""
    try:
        url_rules(settings)
        yield ok(What.SETTINGS, f"{count(len(settings.source.containers), 'container')} to {settings.target.bucket}")
    except Fatal as error:
        yield failure(What.SETTINGS, f"{error.setting}: {error.message}", error.remedy)
    yield from _hours(settings)
    yield from _pause(settings)
    yield from _alerts(settings)


def _hours(settings: Settings) -> Findings:
    try:
        windows(settings)
    except Fatal as error:
        yield failure(What.HOURS, error.message, error.remedy or "Mend control.windows, or control.time_zone.")
        return
    told, zone = settings.control.windows, settings.control.time_zone
    yield ok(What.HOURS, f"runs work {', '.join(told)} ({zone})" if told else "runs work at all times")


def _pause(settings: Settings) -> Findings:
    query = settings.control.pause_while
    if query is None:
        yield ok(What.PAUSE, "not used")
        return
    with closing(PauseQuery(settings.secrets.database_url.get_secret_value(), query)) as asked:
        try:
            busy = asked.ask()
        except Fatal as error:
            yield failure(What.PAUSE, error.message, error.remedy)
            return
    yield ok(What.PAUSE, "says that runs are to pause now" if busy else "says that runs may work now")


def _alerts(settings: Settings) -> Findings:
    urls = [url.get_secret_value() for url in settings.secrets.alert_urls]
    if not urls:
        yield warning(
            What.ALERTS,
            "not set in this shell, which says nothing of the Dagster code server: what it has set counts.",
            "In the UI, Automation > alerts: its ticks say whether anybody is told. If not, set ALERT_URLS in the "
            "environment of the code server; docs/alerts.md has examples.",
        )
        return
    from apprise import Apprise  # noqa: PLC0415 - half a second

    # By the names that alerts use: the URLs hold secrets.
    unknown = [
        channel.name
        for url in dict.fromkeys(urls)
        for channel in channels([url])
        if Apprise.instantiate(url, suppress_exceptions=True) is None
    ]
    for name in unknown:
        yield failure(
            What.ALERTS, f"{name} is no URL that apprise can use.", "docs/alerts.md has examples for common services."
        )
    if not unknown:
        yield ok(What.ALERTS, f"{len(urls)} given; `migration-pipeline alerts test` tries them")
