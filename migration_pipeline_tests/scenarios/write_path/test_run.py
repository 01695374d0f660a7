"""What a look at the write path leaves behind, shows and keeps."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import timedelta

import pytest
from click.testing import CliRunner

from migration_pipeline.cli.main import main
from migration_pipeline.commands.doctor import Health, uploading
from migration_pipeline.commands.doctor.findings import WritePath
from migration_pipeline.cutover import WRITE_PATH
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline.sandbox.processes import free_ports
from migration_pipeline.stores import open_ledger
from migration_pipeline_tests.scenarios.write_path.conftest import DENIED, ORIGIN, SECOND, Place


def test_probes_go_wherever_it_ends(weed: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    weed.client.put_bucket_versioning(Bucket=weed.name, VersioningConfiguration={"Status": "Enabled"})
    with FaultProxy(weed.port) as proxy:
        # The answer got lost, and the object is there.
        proxy.faults = [Fault("lost_reply", match=r"^(PUT|POST) ")]
        told = weed.told(**weed.behind(proxy))
        assert (told[WritePath.PUT][0].health, told[WritePath.PROBES][0].health) == (Health.FAILURE, Health.OK)
        assert weed.held() == []
        for number in (signal.SIGTERM, signal.SIGINT):
            with hung(weed, proxy) as process:
                assert weed.held()
                process.send_signal(number)
                # Nothing hangs any more, or a removal would wait for it.
                proxy.faults = []
                process.communicate(timeout=60)
            assert weed.held() == []
        with hung(weed, proxy) as process:
            process.kill()
            process.communicate(timeout=60)
        (left,) = weed.held()
        proxy.faults = []
        # Young ones may be those of an examination at work; a user's file is nobody's to remove.
        theirs = f"u/{uploading.PROFILE}/theirs.png"
        weed.client.put_object(Bucket=weed.name, Key=theirs, Body=b"x" * len(uploading.IMAGE))
        weed.told(**weed.behind(proxy))
        assert sorted(weed.held()) == sorted([left, theirs])
        monkeypatch.setattr(uploading, "LEFT_BEHIND", timedelta(0))
        weed.told(**weed.behind(proxy))
        assert weed.held() == [theirs]
        # Where they cannot be removed, they are named.
        proxy.faults = [Fault("status", match=r"^DELETE ", answer=DENIED)]
        (probes,) = weed.told(**weed.behind(proxy))[WritePath.PROBES]
        assert probes.health is Health.FAILURE
        assert all(key in probes.said for key in weed.held() if key != theirs)


class hung:  # noqa: N801 - used as a function
    """The command, as it waits for a store that took an upload and then answers nothing."""

    def __init__(self, place: Place, proxy: FaultProxy) -> None:
        self._place, self._proxy = place, proxy

    def __enter__(self) -> "subprocess.Popen[str]":
        self._proxy.faults = [Fault("hang", match=r"^POST ")]
        before = self._proxy.happened["hang"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "migration_pipeline.cli", "doctor", "--write-path"],
            env={**os.environ, **self._place.environment, **self._place.behind(self._proxy)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 60
        while self._proxy.happened["hang"] == before:
            assert self._process.poll() is None, self._process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self._process

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def test_no_secret_is_shown_and_refusals_count(weed: Place, caplog: pytest.LogCaptureFixture) -> None:
    with FaultProxy(weed.port) as proxy, caplog.at_level("DEBUG", logger="migration_pipeline"):
        outputs = []
        for faults in (
            [],
            [Fault("status", match=r"^(PUT|POST|OPTIONS) ", answer=DENIED)],
            [Fault("reset", match=r"^(PUT|POST|OPTIONS) ")],
            [Fault("status", match=r"^GET ", answer=DENIED)],
        ):
            proxy.faults = faults
            outputs.append(weed.run("--json", "--fix", **weed.behind(proxy)).output)
    with closing(open_ledger(weed.settings())) as ledger:
        outputs += [json.dumps(ledger.remembered(WRITE_PATH)), caplog.text]
    for text in outputs:
        for secret in ("X-Amz-", "Signature=", weed.environment["AWS_SECRET_ACCESS_KEY"], 'Policy":"ey'):
            assert secret not in text
    missing = {"MIGRATION_TARGET__BUCKET": "nowhere"}
    done = weed.run("--json", **missing)
    assert done.exit_code == 2
    assert {"target: target.bucket", str(WritePath.KEPT)} <= {line["what"] for line in json.loads(done.output)}
    with closing(open_ledger(weed.settings())) as ledger:
        assert ledger.remembered(WRITE_PATH)["failures"] == 1


def test_what_is_kept_for_the_cut_over(weed: Place) -> None:
    weed.allow(SECOND)
    weed.open_to_all()
    told = weed.told(SECOND)
    assert told[WritePath.KEPT][0].said == f"no: {ORIGIN} of uploads.origins was not tried."
    with closing(open_ledger(weed.settings(), create=True)) as ledger:
        assert ledger.remembered(WRITE_PATH) is None
    assert weed.health(WritePath.KEPT, SECOND, ORIGIN) == [Health.OK]
    with closing(open_ledger(weed.settings())) as ledger:
        assert ledger.remembered(WRITE_PATH)["failures"] == 1
    stopped = f"postgresql://postgres@127.0.0.1:{free_ports(1)[0]}/app"
    assert weed.health(WritePath.KEPT, SECOND, ORIGIN, LEDGER_URL=stopped) == [Health.FAILURE]


def test_options_that_go_together(weed: Place) -> None:
    for arguments in (["--fix"], ["--origin", ORIGIN], ["--write-path", "--apply"]):
        done = CliRunner().invoke(main, ["doctor", *arguments], env=weed.environment)
        assert (done.exit_code, "goes with" in done.output or "go with" in done.output) == (2, True)
