"""Files that we write and read: links, rights, and bodies that are small until somebody unpacks them."""

import asyncio
import gzip
import hashlib
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from azure.storage.blob import BlobServiceClient, ContentSettings
from prometheus_client.parser import text_string_to_metric_families

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.adapters.ledger.overview import LetterClass
from migration_pipeline.adapters.ledger.status import Rate, Standing, Status
from migration_pipeline.adapters.metrics_textfile import write
from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.cli.letters import _new
from migration_pipeline.core.copy_file import Copier, CopyLimits
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, WantedFile
from migration_pipeline.core.transfer import transfer
from migration_pipeline.core.urls import KeyTemplate, UrlRules
from migration_pipeline.sandbox import Sandbox

UNPACKED = 2 * 1024**3
MOST = 200 * 1024**2
"""Bytes that copying may take; unpacked, even in parts that are kept, the body would take ten times as much."""


@pytest.fixture
def bomb(sandbox: Sandbox) -> tuple[str, bytes]:
    """A container and bucket of one name; in the container a body of two megabytes that unpacks to two gigabytes."""
    name, member = f"bomb{uuid4().hex[:12]}", gzip.compress(bytes(16 * 1024**2), mtime=0)
    body = member * (UNPACKED // (16 * 1024**2))
    with BlobServiceClient(sandbox.azure_account_url, credential=sandbox.environment["AZURE_STORAGE_KEY"]) as azure:
        azure.create_container(name)
        packed = ContentSettings(content_type="image/svg+xml", content_encoding="gzip")
        azure.get_blob_client(name, "bomb.svgz").upload_blob(body, content_settings=packed)
    client = boto3.client("s3", endpoint_url=sandbox.s3_endpoint_url, region_name="us-east-1")
    client.create_bucket(Bucket=name)
    client.close()
    return name, body


def test_a_body_that_would_unpack_to_gigabytes_is_copied_as_it_is(sandbox: Sandbox, bomb: tuple[str, bytes]) -> None:
    name, body = bomb
    rules = UrlRules(
        account_url=sandbox.azure_account_url,
        containers=[name],
        alias_hosts={},
        public_base_url="https://cdn.example.com",
        keys=KeyTemplate(),
    )
    recorded: list[CopyResult] = []

    async def copy() -> None:
        key = AzureCredentials(sandbox.environment["AZURE_STORAGE_KEY"])
        async with (
            AzureBlobSource(sandbox.azure_account_url, [name], key) as source,
            S3Target(Bucket(name, "us-east-1", sandbox.s3_endpoint_url)) as target,
        ):
            wanted = [WantedFile(SourceFile(name, "bomb.svgz"))]
            await transfer(wanted, Copier(source, target, rules, CopyLimits(read_back="always")), recorded.extend)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(copy())
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    (result,) = recorded
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    assert (result.outcome, result.size, result.md5) == (Outcome.COPIED, len(body), digest)
    assert grown < MOST


def test_metrics_replace_a_link_and_do_not_write_through_it(tmp_path: Path) -> None:
    precious, path = tmp_path / "precious", tmp_path / "migration.prom"
    precious.write_text("mine", encoding="utf-8")
    path.symlink_to(precious)
    names = [SourceFile("photos", 'a"} 1\nmigration_paused 1\n#')]
    letters = [LetterClass(Outcome.SOURCE_MISSING, 1, 0, None, names)]
    write(path, Standing(datetime.now(UTC), Status(), Rate(), 0, 0, letters, None), paused=False)
    assert precious.read_text(encoding="utf-8") == "mine"
    assert not path.is_symlink()
    # And no name of a user is in them: labels are words of ours.
    text = path.read_text(encoding="utf-8")
    assert "migration_paused 0.0" in text
    assert "\nmigration_paused 1\n" not in text
    labels = {label for family in text_string_to_metric_families(text) for s in family.samples for label in s.labels}
    assert labels <= {"state", "class", "stage"}


def test_an_export_does_not_write_through_a_link(tmp_path: Path) -> None:
    # Without --force a file is made and none is opened; so is no link, wherever it leads.
    precious, dangling = tmp_path / "precious", tmp_path / "dangling"
    precious.write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to(precious)
    dangling.symlink_to(tmp_path / "made")
    for path in (tmp_path / "link", dangling):
        with pytest.raises(Fatal):
            _new(path, force=False)
    assert precious.read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "made").exists()


def test_a_sandbox_removes_links_and_not_what_they_lead_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine", encoding="utf-8")
    script = (
        "import sys, pathlib\n"
        "from contextlib import ExitStack\n"
        "from migration_pipeline.sandbox import Sandbox\n"
        "with ExitStack() as stack:\n"
        "    folder = Sandbox()._make_folder(stack)\n"
        "    assert oct(folder.stat().st_mode & 0o777) == '0o711'\n"
        "    (folder / 'link').symlink_to(sys.argv[1])\n"
        "print(folder)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(precious)], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).exists()
    assert (precious / "file").read_text(encoding="utf-8") == "mine"
