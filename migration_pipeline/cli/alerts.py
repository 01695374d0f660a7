"""The commands about alerts."""

import sys
from datetime import UTC, datetime

import click

from migration_pipeline.cli.show import LEFT, as_json, honest, print_json, print_table
from migration_pipeline.core.errors import Fatal


@click.group()
def alerts() -> None:
    """Who is told when the migration needs somebody."""


@alerts.command("test")
@as_json
@honest
def send_trial(json_: bool) -> None:  # noqa: FBT001 - click's form
    """Send a test message to every channel of ALERT_URLS, and say which took it."""
    from migration_pipeline.adapters.alert_channels import channels  # noqa: PLC0415 - commands load what they need
    from migration_pipeline.core.alerts import trial_alert  # noqa: PLC0415 - as above
    from migration_pipeline.settings import load  # noqa: PLC0415 - as above

    settings = load()
    to = channels([url.get_secret_value() for url in settings.secrets.alert_urls])
    if not to:
        raise Fatal(
            "is not set in this shell, so nobody can be told from here.",
            setting="ALERT_URLS",
            remedy="Set it as the Dagster code server has it, and try again; docs/alerts.md has examples.",
        )
    alert = trial_alert(datetime.now(UTC), settings.alerts.ui_url)
    taken = [channel.send(alert) for channel in to]
    if json_:
        print_json([
            {"channel": channel.name, "taken": ok, "trouble": channel.trouble}
            for channel, ok in zip(to, taken, strict=True)
        ])  # fmt: skip
    else:
        rows = [
            [channel.name, "ok" if ok else "failure", channel.trouble] for channel, ok in zip(to, taken, strict=True)
        ]
        print_table(["channel", "", "why"], rows)
        if not all(taken):
            click.echo("Look at those URLs in ALERT_URLS, and at whether this machine reaches their hosts.")
    if not all(taken):
        sys.exit(LEFT)
