"""Blobs whose stored Content-MD5 is wrong, and whose source may not be changed: an operator accepts the bytes."""

import json
import os
from contextlib import closing
from hashlib import md5
from pathlib import Path
from unittest.mock import patch

import boto3
import pytest
from azure.storage.blob import BlobServiceClient, ContentSettings

from migration_pipeline.definitions import defs
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests.commands_here import command
from migration_pipeline_tests.scenarios.hostile_app.app import HostileApp
from migration_pipeline_tests.scenarios.hostile_app.conftest import MakeApp

TABLES = "CREATE TABLE profiles (id bigint PRIMARY KEY, photos text, photos_migrated_at timestamptz);"
APPENDED, ZEROS, FINE = "appended.log", "zeros.jpg", "fine.jpg"


@pytest.fixture
def app(make_app: MakeApp) -> HostileApp:
    """Three profiles: one with an append blob that kept its first digest, one with zeros, one that is well."""
    app = make_app(TABLES, profiles='{ columns = ["photos"] }')
    app.upload(ZEROS, FINE)
    with BlobServiceClient(
        app.sandbox.azure_account_url, credential=app.sandbox.environment["AZURE_STORAGE_KEY"]
    ) as azure:
        azure.get_blob_client(app.name, ZEROS).set_http_headers(ContentSettings(content_md5=bytearray(16)))
        log = azure.get_blob_client(app.name, APPENDED)
        first = bytearray(md5(b"first", usedforsecurity=False).digest())
        log.create_append_blob(content_settings=ContentSettings(content_md5=first))
        for line in (b"first", b"second"):
            log.append_block(line)
    for number, blob in enumerate((APPENDED, ZEROS, FINE), start=1):
        app.execute("INSERT INTO profiles (id, photos) VALUES (%s, %s)", number, app.az(blob))
    assert app.reasons() == {"1": "digest_mismatch", "2": "digest_mismatch"}
    return app


def environment(app: HostileApp, tmp_path: Path) -> dict[str, str]:
    return {
        **app.sandbox.environment,
        "DATABASE_URL": app.database_url,
        "MIGRATION_CONFIG": str(tmp_path / f"{app.name}.toml"),
    }


def test_accepted_files_are_copied_as_they_are_and_the_report_says_so(app: HostileApp, tmp_path: Path) -> None:
    told = environment(app, tmp_path)

    def say(*arguments: str) -> tuple[int, dict[str, object]]:
        done = command([*arguments, "--json"], told, tmp_path)
        assert done.stderr == "", done.stderr
        return done.returncode, json.loads(done.stdout)

    one = ("dead-letters", "accept", "--file", f"{app.name}/{APPENDED}", "--why", "an append blob", "--by", "ann")
    assert say(*one) == (0, {"applied": False, "files": 1, "classes": {"digest_mismatch": 1}})
    assert app.reasons() == {"1": "digest_mismatch", "2": "digest_mismatch"}
    assert say(*one, "--apply") == (0, {"files": 1, "ranges": app.keys})
    # That one alone: the other one is of the same class, and nobody said anything of it.
    assert app.reasons() == {"2": "digest_mismatch"}
    rest = ("dead-letters", "accept", "--class", "digest_mismatch", "--why", "set by hand", "--by", "bob", "--apply")
    assert say(*rest) == (0, {"files": 1, "ranges": app.keys})
    assert app.reasons() == {}
    assert say(*rest)[0] == 1

    with closing(boto3.client("s3", endpoint_url=app.sandbox.s3_endpoint_url, region_name="us-east-1")) as s3:
        bodies = {
            blob: s3.get_object(Bucket=app.sandbox.bucket, Key=f"{app.name}/{app.name}/{blob}")["Body"].read()
            for blob in (APPENDED, ZEROS, FINE)
        }
    assert bodies == {APPENDED: b"firstsecond", ZEROS: ZEROS.encode(), FINE: FINE.encode()}
    assert [url for (url,) in app.ask("SELECT photos FROM profiles ORDER BY id")] == [
        app.s3(blob) for blob in (APPENDED, ZEROS, FINE)
    ]
    _, written = say("report", "--out", str(tmp_path / "report"))
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "2 files have a wrong stored Content-MD5" in json.dumps(written)
    for words in (
        "an append blob",
        "set by hand",
        "ann",
        "bob",
        md5(b"firstsecond", usedforsecurity=False).hexdigest(),
    ):
        assert words in page


def test_the_launchpad_counts_and_then_accepts(app: HostileApp, tmp_path: Path) -> None:
    job = defs.get_job_def("accept_dead_letters")

    def launch(**config: object) -> bool:
        run = {"ops": {"accept_letters": {"config": config}}}
        with patch.dict(os.environ, environment(app, tmp_path)):
            return job.execute_in_process(run_config=run, raise_on_error=False).success

    assert not launch(**{"class": "source_missing", "why": "no", "apply": True})
    assert not launch(**{"class": "digest_mismatch", "apply": True})
    assert not launch(why="nothing is chosen", apply=True)
    assert launch(**{"class": "digest_mismatch", "why": "append blobs"})
    with closing(open_ledger(app.settings)) as ledger:
        assert [act.what for act in ledger.overview.acts()] == []
    assert launch(**{"class": "digest_mismatch", "why": "append blobs", "by": "ann", "apply": True})
    with closing(open_ledger(app.settings)) as ledger:
        assert [(act.what, act.who, act.why) for act in ledger.overview.acts()] == [("accept", "ann", "append blobs")]
    assert app.reasons() == {}
