"""Lists containers of Azure Blob Storage: blobs as they are now, without snapshots, old versions and deleted ones."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from migration_pipeline.adapters.azure.blob import (
    keep_signatures_out_of_logs,
    refused,
    sdk_options,
)
from migration_pipeline.adapters.azure.sign_in import AzureCredentials, refused_by_entra, sign_in
from migration_pipeline.adapters.http.network import Network
from migration_pipeline.core.copy_file import pause
from migration_pipeline.core.errors import Fatal, MigrationError, Permanent, Transient
from migration_pipeline.core.inventory import Listed, Page, quoted
from migration_pipeline.core.model import SourceFile
from migration_pipeline.core.queries import signed

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties, ContainerClient

BLOBS_A_PAGE = 5000  # Azure gives no more
_TRIES = 5
DIRECTORY, NO_NAME, SIGNED = (
    "directories",
    "names that the ledger cannot hold",
    "names that are URLs with a signature",
)
"""Why an entry is skipped."""


class MarkerRefused(Exception):  # noqa: N818 - an answer, not a failure
    """The store does not go on from there any more: the container is to be listed from its beginning."""


class AzureListing:
    """Lists containers page by page; a listing can go on after any page."""

    def __init__(
        self,
        account_url: str,
        credentials: AzureCredentials,
        *,
        timeout: float = 60,
        patience: float = 120,
        blobs_a_page: int = BLOBS_A_PAGE,
        sleep: Callable[[float], None] = time.sleep,
        network: Network | None = None,
    ) -> None:
        """Set up.

        Args:
            account_url: the account's blob endpoint.
            credentials: of the account; a SAS needs the right to list.
            timeout: seconds that the store may stay silent.
            patience: seconds for which an overloaded or unreachable store is asked again.
            blobs_a_page: at most.
            sleep: waits between tries.
            network: the way to it; that of the environment, if none is given.
        """
        self._network = network or Network.of_environment()
        self._account_url, self._credentials = account_url, credentials
        self._timeout, self._patience, self._blobs_a_page, self._sleep = timeout, patience, blobs_a_page, sleep

    def pages(self, container: str, marker: str | None = None) -> Iterator[Page]:
        """The container's blobs from a marker on, or from the beginning.

        Raises:
            MarkerRefused: the store does not know the marker any more.
            Transient: the store could not answer for longer than patience lasts.
            Fatal: the container or the key is refused.
        """
        with closing(self._client(container)) as client:
            given = marker
            while True:
                try:
                    page = self._page(client, container, marker)
                except Permanent as error:
                    if given is not None and marker == given:
                        raise MarkerRefused from None
                    raise Fatal(
                        f"cannot list {container!r}: {error}", setting="source.containers", remedy="Try again."
                    ) from None
                if page.marker is not None and page.marker == marker:
                    raise Transient("the source gave the same page twice")
                yield page
                if page.marker is None:
                    return
                marker = page.marker

    def _client(self, container: str) -> "ContainerClient":
        from azure.storage.blob import ContainerClient  # noqa: PLC0415 - 0.3 s that other commands need not spend

        keep_signatures_out_of_logs()
        self._sign_in = sign_in(
            self._account_url, [container], self._credentials, self._network, timedelta(hours=6), "rl"
        )
        return ContainerClient(
            self._account_url,
            container,
            credential=self._sign_in.for_sdk(container),
            **sdk_options(self._network, self._account_url, self._timeout),
        )

    def _page(self, client: "ContainerClient", container: str, marker: str | None) -> Page:
        began, tries = time.monotonic(), 0
        while True:
            tries += 1
            try:
                return self._asked(client, container, marker)
            except Transient as error:
                patient = error.overload and time.monotonic() - began < self._patience
                if tries >= _TRIES and not patient:
                    raise
                self._sleep(pause(tries, error.retry_after))

    def _asked(self, client: "ContainerClient", container: str, marker: str | None) -> Page:
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - as above

        try:
            # With metadata: on accounts with a hierarchical namespace, nothing else tells directories.
            pages: Any = client.list_blobs(include=["metadata"], results_per_page=self._blobs_a_page).by_page(marker)
            entries = list(next(pages, ()))
        except AzureError as error:
            raise self._translated(error) from None
        skipped: Counter[str] = Counter()
        blobs = [blob for entry in entries if (blob := _listed(container, entry, skipped)) is not None]
        return Page(blobs, pages.continuation_token or None, skipped)

    def _translated(self, error: Any) -> MigrationError:  # noqa: ANN401 - azure.core.exceptions.AzureError, imported late
        # Never the text of these errors: it can hold the URL, and with it the SAS.
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if response is None and type(error).__name__ in {"ClientAuthenticationError", "CredentialUnavailableError"}:
            return refused_by_entra(error)
        if response is None or status is None or status < 400:  # noqa: PLR2004 - an answer that could not be read
            return Transient(f"listing the source failed: {type(error).__name__}", overload=status is None)
        headers = response.headers
        code = headers.get("x-ms-error-code") or str(getattr(error, "error_code", None) or "")
        code = code.removeprefix("StorageErrorCode.")
        return refused(status, code, headers.get("Retry-After"), self._sign_in.setting)


def _listed(container: str, entry: "BlobProperties", skipped: Counter[str]) -> Listed | None:
    if (entry.metadata or {}).get("hdi_isfolder", "").lower() == "true":
        skipped[DIRECTORY] += 1
        return None
    if "\0" in entry.name:
        skipped[NO_NAME] += 1
        return None
    if signed(entry.name):
        skipped[SIGNED] += 1
        return None
    md5 = bytes(entry.content_settings.content_md5 or b"")
    return Listed(
        SourceFile(container, entry.name),
        int(entry.size or 0),
        md5 if len(md5) == 16 else None,  # noqa: PLR2004 - an MD5's bytes
        quoted(entry.etag) if entry.etag else None,
        str(entry.blob_tier) if entry.blob_tier else None,
        entry.last_modified,
    )
