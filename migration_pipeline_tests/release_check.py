"""What `make dist` made, as somebody meets it who has nothing else; `make release-check` runs it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
LOADED = "from migration_pipeline.definitions import defs; print(len(list(defs.assets or ())))"


def main(folder: Path) -> None:
    """Install the wheel in an empty environment, run it from an empty folder, and then the demo."""
    (wheel,) = folder.resolve().glob("*.whl")
    with tempfile.TemporaryDirectory(prefix="migration-release-") as scratch:
        environment, empty = Path(scratch, "venv"), Path(scratch, "empty")
        empty.mkdir()
        python = environment / "bin" / "python"
        _install([UV, "venv", "--quiet", "--python", sys.executable, environment], empty)
        # The image's own way: what the lock names, by its hashes, and the wheel without asking for anything more.
        locked = ["--require-hashes", "-r", ROOT / "deploy" / "requirements.lock"]
        _install([UV, "pip", "install", "--quiet", "--python", python, *locked], empty)
        _install([UV, "pip", "install", "--quiet", "--python", python, "--no-deps", "--no-index", wheel], empty)
        _install([UV, "pip", "check", "--python", python], empty)
        command = environment / "bin" / "migration-pipeline"
        _run([command, "--help"], empty)
        _run([command, "doctor"], empty, expected=2)
        _run([python, "-c", LOADED], empty)
        # The documented extra, and the demo.
        extra = [f"{wheel}[sandbox]", "--constraint", ROOT / "requirements.lock"]
        _install([UV, "pip", "install", "--quiet", "--python", python, *extra], empty)
        _run([command, "demo"], empty)
        left = sorted(path.name for path in empty.iterdir())
        if left:
            sys.exit(f"left behind in the folder: {', '.join(left)}")
    print("The release works.")  # noqa: T201 - a command


def _install(command: Sequence[str | Path], folder: Path) -> None:
    """With this environment's registry and certificates."""
    print("$", *command, flush=True)  # noqa: T201 - a command
    subprocess.run([str(word) for word in command], cwd=folder, check=True)


def _run(command: Sequence[str | Path], folder: Path, *, expected: int = 0) -> None:
    print("$", *command, flush=True)  # noqa: T201 - a command
    began = time.monotonic()
    # Nothing of this environment: no settings, no packages, no credentials.
    clean = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    done = subprocess.run([str(word) for word in command], cwd=folder, env=clean, check=False)
    print(f"  exit code {done.returncode}, {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201 - a command
    if done.returncode != expected:
        sys.exit(f"that was to exit with {expected}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
