"""Removing blobs from Azure: with a SAS of its own that may delete, or write; the migration's own may only read."""

import asyncio
from contextlib import suppress

from migration_pipeline.adapters.azure.blob import (
    AzureBlobSource,
    content_md5,
    etag_of,
    keep_signatures_out_of_logs,
    sdk_options,
)
from migration_pipeline.adapters.azure.sign_in import KEY_SETTING, SAS_SETTING, AzureCredentials
from migration_pipeline.adapters.http.answers import length_of
from migration_pipeline.adapters.http.network import Network
from migration_pipeline.core.errors import Fatal, Permanent, Transient
from migration_pipeline.core.model import Outcome, SourceFile
from migration_pipeline.core.removal_ports import How, SourceNow

_LEASE_SECONDS = "15"
"""The shortest there is; where it is not given back, for we were cut off, it ends by itself."""
_RIGHTS = {How.DELETE: "rd", How.ARCHIVE: "rw"}
_SOFT_DELETE = "decommission.require_soft_delete"


class AzureBlobRemoval(AzureBlobSource):
    """Fulfils `SourceRemoval`. Open it, with `async with`, in the event loop that uses it."""

    def __init__(
        self,
        account_url: str,
        containers: list[str],
        credentials: AzureCredentials,
        how: How,
        *,
        timeout: float = 60,
        network: Network | None = None,
    ) -> None:
        """Set up.

        Args:
            account_url: the account's blob endpoint.
            containers: those that may be changed.
            credentials: of the account.
            how: what becomes of a blob.
            timeout: seconds that the store may stay silent within a request.
            network: the way to it; that of the environment, if none is given.
        """
        super().__init__(account_url, containers, credentials, timeout=timeout, rights=_RIGHTS[how], network=network)
        self._how = how

    async def kept_days(self) -> int | None:
        return await asyncio.to_thread(self._kept_days)

    def _kept_days(self) -> int | None:
        from azure.core.exceptions import AzureError, HttpResponseError  # noqa: PLC0415 - asked once, seldom
        from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - as above

        keep_signatures_out_of_logs()
        credential = self.sign_in.for_sdk()
        try:
            with BlobServiceClient(
                self._account_url, credential=credential, **sdk_options(self._network, self._account_url, self._timeout)
            ) as client:
                kept = client.get_service_properties()["delete_retention_policy"]
        except HttpResponseError as error:
            if error.status_code in (401, 403):
                raise Fatal(
                    "whether the account keeps deleted blobs may not be asked with these credentials.",
                    setting=_SOFT_DELETE,
                    remedy=f"Set {KEY_SETTING}, or {SAS_SETTING} to an account SAS with the right to read the service "
                    "(srt=s, sp=r) beside those on blobs; or look for yourself, and set this to false.",
                ) from None
            raise Transient(f"the source answered {error.status_code}") from None
        except AzureError as error:
            # Only the kind: the text can hold the URL, and with it the SAS.
            raise Transient(f"the source did not answer: {type(error).__name__}", overload=True) from None
        return int(kept.days) if kept.enabled else None

    async def look(self, file: SourceFile) -> SourceNow | None:
        try:
            headers = await self._asked(file, "HEAD")
        except Permanent as error:
            if error.outcome is Outcome.SOURCE_MISSING:
                return None
            raise
        archived = headers.get("x-ms-access-tier") == "Archive"
        size = length_of(headers.get("content-length"))
        return SourceNow(etag_of(headers), -1 if size is None else size, content_md5(headers), archived)

    async def remove(self, file: SourceFile, etag: str) -> None:
        try:
            await (self._delete(file, etag) if self._how is How.DELETE else self._archive(file, etag))
        except Permanent:
            # Tried again after an answer that was lost, it is gone, or archived, and the condition or the lease fails.
            now = await self.look(file)
            if now is not None and not (self._how is How.ARCHIVE and now.archived and now.etag == etag):
                raise
        except Fatal as error:
            if error.setting != self.sign_in.setting:
                raise
            what = "delete" if self._how is How.DELETE else "write"
            raise Fatal(
                error.message,
                setting=error.setting,
                remedy=f"Removing needs the account's key, in {SAS_SETTING} a SAS with the rights to read, list and "
                f"{what}, or the role Storage Blob Data Contributor; give it to this command alone.",
            ) from None

    async def _delete(self, file: SourceFile, etag: str) -> None:
        # Without x-ms-delete-snapshots: a blob with snapshots stays, for nobody has looked at those.
        await self._asked(file, "DELETE", {"if-match": etag})

    async def _archive(self, file: SourceFile, etag: str) -> None:
        # Set Blob Tier knows no If-Match; a lease does, and while it lasts nobody else writes the blob. Its name is
        # always the same for a blob, so that whoever tries again after a lost answer has it already.
        lease = str(file.file_id)
        acquire = {
            "if-match": etag,
            "x-ms-lease-action": "acquire",
            "x-ms-lease-duration": _LEASE_SECONDS,
            "x-ms-proposed-lease-id": lease,
        }
        await self._asked(file, "PUT", acquire, "comp=lease&")
        try:
            tier = {"x-ms-access-tier": "Archive", "x-ms-lease-id": lease}
            await self._asked(file, "PUT", tier, "comp=tier&")
        finally:
            with suppress(Permanent, Transient):  # it ends by itself soon
                release = {"x-ms-lease-action": "release", "x-ms-lease-id": lease}
                await self._asked(file, "PUT", release, "comp=lease&")
