"""The source: the rights to list and to read, tried on one blob of each container."""

import asyncio

from migration_pipeline.adapters.azure.probe import AzureBlobProbe
from migration_pipeline.commands.doctor.findings import Finding, Findings, What, failure, ok, warning
from migration_pipeline.core.errors import Fatal, MigrationError
from migration_pipeline.core.model import SourceFile
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings
from migration_pipeline.stores import open_source_probe


def source(settings: Settings) -> Findings:
    """A line for each container."""

    async def look() -> list[Finding]:
        async with open_source_probe(settings) as probe:
            return await asyncio.gather(*(_container(probe, name) for name in settings.source.containers))

    yield from run(look())


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
