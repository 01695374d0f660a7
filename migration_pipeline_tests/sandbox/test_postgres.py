"""The sandbox's Postgres where its package lies in a folder that its user cannot reach."""

import subprocess
from pathlib import Path

import pytest

from migration_pipeline.sandbox import postgres


def test_binaries_run_from_where_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_reachable", lambda _: False)
    binaries = postgres._binaries(tmp_path, shared=True)  # noqa: SLF001 - a whole venv in a closed folder is too dear
    assert binaries.is_relative_to(tmp_path)
    for name in ("initdb", "postgres"):
        done = subprocess.run([binaries / name, "--version"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
