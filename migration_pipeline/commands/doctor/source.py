"""The source: the rights to list and to read, tried on one blob of each container."""

import asyncio
from datetime import UTC, datetime, timedelta

from migration_pipeline.adapters.azure.probe import AzureBlobProbe
from migration_pipeline.adapters.azure.sign_in import AUTH_SETTING, KEY_SETTING, SAS_SETTING
from migration_pipeline.commands.doctor.findings import Finding, Findings, What, failure, ok, warning
from migration_pipeline.core.errors import Fatal, MigrationError
from migration_pipeline.core.model import SourceFile
from migration_pipeline.core.situation import SAS_SOON
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_source_probe


def source(settings: Settings) -> Findings:
    """A line for each container."""

    async def look() -> list[Finding]:
        async with open_source_probe(settings) as probe:
            found = await asyncio.gather(*(_container(probe, name) for name in settings.source.containers))
            return [_sign_in(probe), *found]

    yield from run(look())


def _sign_in(probe: AzureBlobProbe) -> Finding:
    """How requests are signed, and until when."""
    end, way = probe.sign_in.ends_at, _WAYS[probe.sign_in.setting]
    if end is None:
        return ok(What.SOURCE_SIGN_IN, way)
    left = end - datetime.now(UTC)
    said = f"the SAS ends at {end:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta(0):
        return failure(What.SOURCE_SIGN_IN, f"{said}: that is over.", _RENEW)
    if left < SAS_SOON:
        return warning(What.SOURCE_SIGN_IN, f"{said}, in {left.total_seconds() / 3600:.0f} hours.", _RENEW)
    return ok(What.SOURCE_SIGN_IN, f"{way}; {said}")


_WAYS = {KEY_SETTING: "the account's key", SAS_SETTING: "a SAS that you made", AUTH_SETTING: "an identity of Entra"}
_RENEW = f"Make another, set {SAS_SETTING} to it, and restart what runs."


async def _container(probe: AzureBlobProbe, name: str) -> Finding:
    may = "list"
    try:
        blob = await probe.first_blob(name)
        if blob is None:
            return warning(What.SOURCE, f"{name} lists, and is empty: reading was not tried.", "Check its name.")
        may = "read"
        read = await probe.read_a_byte(SourceFile(name, blob))
    except Fatal as error:
        return failure(What.SOURCE, f"{name} does not {may}: {error.setting}: {error.message}", error.remedy)
    except MigrationError as error:
        return failure(What.SOURCE, f"{name} does not {may}: {error}", "Check source.account_url and the network.")
    return ok(What.SOURCE, f"{name} lists" + (" and reads" if read else ", and its first blob may not be read now"))
