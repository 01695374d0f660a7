"""Firestore: Google's emulator where it is installed, else our stand-in, which passes the same contract tests."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from migration_pipeline.sandbox.processes import SandboxUnavailable, ServerProcess, answers, free_ports

Kind = Literal["emulator", "standin"]
_JAR = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
_STANDIN = Path(__file__).with_name("firestore_standin.py")


class FirestoreServer:
    """The emulator, or the stand-in."""

    def __init__(self, folder: Path, kind: Literal["auto", "emulator", "standin"] = "auto") -> None:
        jar = None if kind == "standin" else emulator_jar()
        if kind == "emulator" and jar is None:
            raise SandboxUnavailable("the Firestore emulator needs Java and Cloud SDK's cloud-firestore-emulator")
        self.kind: Kind = "emulator" if jar else "standin"
        port = free_ports(1)[0]
        self.host = f"127.0.0.1:{port}"
        self._process = ServerProcess(
            "Firestore",
            _emulator(jar, port) if jar else [sys.executable, str(_STANDIN), str(port)],
            log=folder.parent / "firestore.log",
        )
        self._process.wait_ready(lambda: answers(port))

    def close(self) -> None:
        """Stop the server."""
        self._process.close()


def emulator_jar() -> Path | None:
    """Where Google's emulator is installed, if it is, and Java with it."""
    gcloud = shutil.which("gcloud")
    if gcloud is None or shutil.which("java") is None:
        return None
    done = subprocess.run(  # noqa: S603 - the machine's Cloud SDK
        [gcloud, "info", "--format=value(installation.sdk_root)"], capture_output=True, text=True, check=False
    )
    jar = Path(done.stdout.strip()) / _JAR
    return jar if done.returncode == 0 and jar.exists() else None


def _emulator(jar: Path, port: int) -> list[str]:
    main = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
    return ["java", "-Xmx512m", "-cp", str(jar), main, "start", "--host=127.0.0.1", f"--port={port}"]
