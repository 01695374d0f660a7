"""A short version of `make soak-workers`, with more faults; too short to judge what grows."""

import json
import xml.etree.ElementTree as ET

import pytest

from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests.soak.picture import drawn
from migration_pipeline_tests.soak.several_workers import kept, soak

WORKERS, APPS = 2, 24


@pytest.mark.timeout(600)
def test_nothing_is_lost_with_several_workers_and_faults(sandbox: Sandbox) -> None:
    told = soak(sandbox, seconds=15, workers=WORKERS, faults=0.05, every=1, apps=APPS, life=10)
    assert (told.broken, told.failures, told.failed) == ([], [], [])
    assert told.users > 3 * APPS, "somebody left, and somebody else came"
    assert told.did["runs"] > 5
    assert told.did["copied"] > 100
    assert min(sum(faults.values()) for faults in told.faults.values()) > 5
    assert len(told.samples) > 3
    assert all(len(sample.memory) == WORKERS for sample in told.samples)
    assert told.samples[-1].connections["migration-pipeline"] >= WORKERS
    assert set(told.flatness()) >= {"memory 1", f"memory {WORKERS}", "connections", "ledger_per_file"}
    assert json.loads(json.dumps(kept(told, workers=WORKERS, faults=0.05)))["lost"] == 0
    ET.fromstring(drawn(told.samples))  # noqa: S314 - our own
