"""What planning and `doctor` ask of Azure Blob Storage; no blob is read but the first byte of one."""

import re
from contextlib import suppress
from email.utils import parsedate_to_datetime
from html import unescape
from urllib.parse import unquote

from migration_pipeline.adapters.azure.blob import AzureBlobSource, content_md5
from migration_pipeline.core.errors import Permanent
from migration_pipeline.core.inventory import Listed
from migration_pipeline.core.model import Outcome, SourceFile


class AzureBlobProbe(AzureBlobSource):
    """Fulfils `SourceSizes`. Open it, with `async with`, in the event loop that uses it."""

    async def size(self, file: SourceFile) -> int:
        headers = await self._asked(file, "HEAD")
        # An archived blob answers HEAD as any other does, and refuses GET.
        if headers.get("x-ms-access-tier") == "Archive":
            raise Permanent(Outcome.SOURCE_ARCHIVED, "the blob is archived")
        return int(headers.get("content-length", 0))

    async def look(self, file: SourceFile) -> Listed | None:
        """The blob as a listing would show it now; `None` where there is none, or the store takes no such name."""
        try:
            headers = await self._asked(file, "HEAD")
        except Permanent:
            return None
        return Listed(
            file,
            int(headers.get("content-length", 0)),
            content_md5(headers),
            headers.get("etag"),
            headers.get("x-ms-access-tier"),
            parsedate_to_datetime(headers["last-modified"]),
        )

    async def first_blob(self, container: str) -> str | None:
        """The name of the container's first blob; `None` where it holds none. Needs the right to list."""
        text = (await self._listed(container)).decode(errors="replace")
        found = re.search(r'<Name(?: Encoded="(true)")?>([^<]*)</Name>', text)
        if found is None:
            return None
        # Names that XML cannot hold come percent-encoded, and say so.
        return unquote(unescape(found[2])) if found[1] else unescape(found[2])

    async def read_a_byte(self, file: SourceFile) -> bool:
        """Whether the blob could be read; needs the right to read, else raises `Fatal`."""
        with suppress(Permanent):  # it is gone by now, or archived, or empty: none of these is a missing right
            await self._fetched(file, {"range": "bytes=0-0"}, lambda answer: answer.body())
            return True
        return False
