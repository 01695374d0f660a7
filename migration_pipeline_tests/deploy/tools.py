"""Programs that come with the packages of the extra `deploy-checks`."""

import subprocess
import sys
from pathlib import Path


def tool(name: str, *arguments: str) -> str:
    """Run it, and return what it says; fail with that if it finds anything."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / name), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
