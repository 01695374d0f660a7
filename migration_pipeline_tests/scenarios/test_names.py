"""Every name that the source holds arrives unchanged and is reached by its new URL, or is refused by name."""

import asyncio
import http.client
import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import boto3
import pytest
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.core.copy_file import Copier, CopyLimits
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, WantedFile
from migration_pipeline.core.transfer import transfer
from migration_pipeline.core.urls import KeyTemplate, UrlKind, UrlRules
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.names import blob_names

if TYPE_CHECKING:
    from migration_pipeline_tests.moto_server import MotoServer

NOT_TAKEN = {"escape/a/b", "/", "//", "slash/a/b", "C:\\a.jpg"}
"""Azurite takes these for others: a backslash in a path for a slash, a name of slashes alone for none."""


NOT_LISTED = {".uploads/a", "uploads/.uploads/a", "a.versions/b"}
"""SeaweedFS keeps things of its own in such folders, and does not list them; it gives these back all the same."""


@dataclass(frozen=True, slots=True)
class Names:
    """A container with a blob under every name that the source takes, and what came of copying them."""

    store: str
    container: str
    asked: list[str]
    bodies: dict[str, bytes]
    recorded: dict[str, CopyResult]
    rules: UrlRules
    s3: Any

    def key(self, name: str) -> str:
        return f"{self.container}/{name}"


@pytest.fixture(scope="module", params=["seaweedfs", "moto"])
def names(request: pytest.FixtureRequest, sandbox: Sandbox) -> Iterator[Names]:
    endpoint_url = sandbox.s3_endpoint_url
    if request.param == "moto":
        server: MotoServer = request.getfixturevalue("moto")
        endpoint_url = server.endpoint_url
    container = bucket = f"names{uuid4().hex[:8]}"
    asked = [name for group in blob_names(container).values() for name in group]
    s3 = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1")
    s3.create_bucket(Bucket=bucket)
    allowed = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
    rules = UrlRules(
        account_url=sandbox.azure_account_url,
        containers=[container],
        alias_hosts={},
        public_base_url=f"{endpoint_url}/{bucket}",
        keys=KeyTemplate(),
    )
    key = sandbox.environment["AZURE_STORAGE_KEY"]
    bodies = upload(sandbox.azure_account_url, key, container, asked)
    recorded: list[CopyResult] = []

    async def copy() -> None:
        async with (
            AzureBlobSource(sandbox.azure_account_url, [container], AzureCredentials(key)) as source,
            S3Target(Bucket(bucket, "us-east-1", endpoint_url)) as target,
        ):
            # SeaweedFS loses an object where a folder is made at the same moment: names beside their folders come last.
            folders = {parent for name in bodies for parent in parents(folded(name))}
            for last in (False, True):
                names = [name for name in bodies if "\0" not in name and (folded(name) in folders) is last]
                wanted = [WantedFile(SourceFile(container, name)) for name in names]
                await transfer(wanted, Copier(source, target, rules, CopyLimits(max_attempts=2)), recorded.extend)

    asyncio.run(copy())
    yield Names(request.param, container, asked, bodies, {result.file.blob: result for result in recorded}, rules, s3)
    s3.close()


def upload(account_url: str, key: str, container: str, asked: list[str]) -> dict[str, bytes]:
    """PUT a body under every name, over plain HTTP so that no client alters it; return those that are there then.

    A listing cannot tell: it is XML, which holds no control characters. A name that the source takes for another one
    brings the other's body, for that was written later or is written over.
    """
    parts = urlsplit(account_url)
    with BlobServiceClient(account_url, credential=key) as azure:
        azure.create_container(container)
        sas = generate_container_sas(
            parts.path.strip("/"),
            container,
            account_key=key,
            permission=ContainerSasPermissions(read=True, create=True, write=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        connection = http.client.HTTPConnection(parts.netloc)

        def ask(method: str, name: str, body: bytes | None = None) -> bytes:
            headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-08-06"}
            connection.request(method, f"{parts.path}/{container}/{quote(name)}?{sas}", body, headers)
            return connection.getresponse().read()

        bodies = {name: f"{number}: {name!r}".encode() for number, name in enumerate(asked)}
        for name, body in bodies.items():
            ask("PUT", name, body)
        held = {name: body for name, body in bodies.items() if ask("GET", name) == body}
        connection.close()
    return held


def folded(name: str) -> str:
    """What SeaweedFS makes of a name: it keeps objects in folders, and takes a backslash for a slash."""
    return "/".join(filter(None, re.split(r"[/\\\\]+", name)))


def parents(name: str) -> list[str]:
    """The folders of a name without a slash at either end."""
    return ["/".join(name.split("/")[:n]) for n in range(1, name.count("/") + 1)]


def leads_out(name: str) -> bool:
    """Whether a path of a folder and this name ends, on the way, above that folder."""
    steps = re.sub(r"[/\\]+", "/", name).strip("/").split("/")
    paths = [posixpath.normpath("/".join(steps[:end])) for end in range(1, len(steps) + 1)]
    return any(path.split("/")[0] == ".." for path in paths)


def why_refused(name: str, names: Names) -> str | None:
    """Why this name cannot be kept under its own key, by S3's rule or by the store's own; `None` where it must be."""
    segments = re.split(r"[/\\]+", name)
    others = [folded(other) for other in names.bodies if other != name]
    reasons = {
        "S3 ends keys at 1,024 bytes": len(names.key(name).encode()) > 1024,
        "it could lead out of its container": leads_out(name),
    }
    seaweed = {
        "SeaweedFS refuses dot segments": {".", ".."} & set(segments),
        "SeaweedFS ends segments at 255 bytes": max(len(segment.encode()) for segment in segments) > 255,
        "SeaweedFS takes it for a folder": not segments[-1],
        "SeaweedFS takes it for the same key as another name": folded(name) in others,
        "SeaweedFS keeps no object where it keeps a folder": any(o.startswith(folded(name) + "/") for o in others),
    }
    moto = {"moto's routes know no line feed": "\n" in name}
    reasons |= seaweed if names.store == "seaweedfs" else moto
    return next((reason for reason, holds in reasons.items() if holds), None)


def test_the_source_takes_over_a_thousand(names: Names) -> None:
    assert len(set(names.asked)) == len(names.asked)
    assert set(names.asked) - set(names.bodies) == NOT_TAKEN
    assert len(names.bodies) > 1000


def test_a_name_with_a_nul_is_no_reference_of_ours(names: Names) -> None:
    with_nul = [name for name in names.bodies if "\0" in name]
    assert with_nul
    for name in with_nul:
        found = names.rules.classify(names.rules.source_url(SourceFile(names.container, name)))
        assert found is not None
        assert (found.kind, found.reason) == (UrlKind.UNPARSABLE, "holds a NUL character")


def test_every_other_name_is_copied_or_refused_for_a_reason(names: Names) -> None:
    refused = {name: result for name, result in names.recorded.items() if not result.outcome.verified}
    unexplained = {name: result.outcome for name, result in refused.items() if why_refused(name, names) is None}
    assert unexplained == {}
    assert len(names.recorded) - len(refused) > 1000
    too_long = {name for name in names.recorded if len(names.key(name).encode()) > 1024}
    assert {names.recorded[name].outcome for name in too_long} == {Outcome.TOO_LONG_KEY}


def test_what_is_copied_is_there_byte_for_byte_and_reached_by_its_new_url(names: Names) -> None:
    copied = [name for name, result in names.recorded.items() if result.outcome.verified]
    wrong = []
    for name in copied:
        file = SourceFile(names.container, name)
        found = names.rules.classify(names.rules.source_url(file))
        assert found is not None
        assert (found.kind, found.file) == (UrlKind.SOURCE, file)
        body = names.s3.get_object(Bucket=names.container, Key=names.key(name))["Body"].read()
        # SeaweedFS's policies do not match names with a line feed: nobody may read those, whatever the policy says.
        answer = fetch(names.rules.target_url(file)) if "\n" not in name else names.bodies[name]
        if (body, answer) != (names.bodies[name], names.bodies[name]):
            wrong.append(name)
    assert wrong == []


def test_ordinary_names_are_listed_exactly_as_they_are(names: Names) -> None:
    listed = set()
    for page in names.s3.get_paginator("list_objects_v2").paginate(Bucket=names.container):
        listed |= {item["Key"] for item in page.get("Contents", [])}
    kept = [name for name, result in names.recorded.items() if result.outcome.verified and folded(name) == name]
    assert len(kept) > 900
    hidden = NOT_LISTED if names.store == "seaweedfs" else set()
    assert {name for name in kept if names.key(name) not in listed} == hidden


def fetch(url: str) -> bytes:
    """GET as a browser would, without credentials."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", url.removeprefix(f"http://{parts.netloc}"))
    body = connection.getresponse().read()
    connection.close()
    return body
