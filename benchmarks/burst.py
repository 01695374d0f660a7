"""`make burst`: a store that asks for fewer requests for some seconds, and how the pace comes back.

Draws docs/images/burst.svg.
"""

import asyncio
import hashlib
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from azure.storage.blob import BlobServiceClient, ContentSettings

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.sign_in import AzureCredentials
from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.core.copy_file import Copier, CopyLimits
from migration_pipeline.core.model import CopyResult, SourceFile, WantedFile
from migration_pipeline.core.transfer import transfer
from migration_pipeline.core.urls import KeyTemplate, UrlRules
from migration_pipeline.event_loop import run
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy

DRAWING = Path(__file__).parents[1] / "docs" / "images" / "burst.svg"
FILES, SIZE, IN_FLIGHT = 6000, 20_000, 64
BURST = (4.0, 8.0)  # seconds after the start
EVERY = 0.25  # seconds
CONTAINER = "burst"
_BODY = "<Error><Code>SlowDown</Code></Error>"
BUSY = f"503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {len(_BODY)}\r\n\r\n{_BODY}"


class Sample(NamedTuple):
    """At one moment: files a second since the last one, and requests at once."""

    at: float
    files: float
    limit: int


class Burst(list[Fault]):
    """Nine of ten requests are too many, for some seconds."""

    began = 0.0

    def __iter__(self) -> Iterator[Fault]:
        now = time.monotonic() - self.began
        return iter([Fault("status", 0.9, "^PUT", BUSY)] if BURST[0] <= now < BURST[1] else [])


def main() -> None:
    """Copy through the burst and draw it."""
    with Sandbox() as servers:
        os.environ.update(servers.environment)
        _fill(servers)
        burst = Burst()
        with FaultProxy(urlsplit(servers.s3_endpoint_url).port or 0, burst) as proxy:
            samples = run(_copy(servers, f"http://127.0.0.1:{proxy.port}", burst))
    DRAWING.write_text(_drawn(samples), encoding="utf-8")
    before = [s.files for s in samples if 1 <= s.at < BURST[0]]
    after = [s.files for s in samples if s.at >= BURST[1] + 1][:-2]
    lowest = min(s.limit for s in samples)
    told = f"{sum(before) / len(before):.0f} files/s before, {sum(after) / len(after):.0f} from a second after it"
    os.write(1, f"{told}; at the least {lowest} requests at once\n".encode())


def _fill(servers: Sandbox) -> None:
    body = random.Random(1).randbytes(SIZE)  # noqa: S311 - bytes
    md5 = bytearray(hashlib.md5(body, usedforsecurity=False).digest())
    settings = ContentSettings(content_type="image/jpeg", content_md5=md5)
    with BlobServiceClient(servers.azure_account_url, credential=os.environ["AZURE_STORAGE_KEY"]) as azure:
        container = azure.create_container(CONTAINER)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: container.upload_blob(str(n), body, content_settings=settings), range(FILES)))


async def _copy(servers: Sandbox, endpoint_url: str, burst: Burst) -> list[Sample]:
    rules = UrlRules(
        account_url=servers.azure_account_url,
        containers=[CONTAINER],
        alias_hosts={},
        public_base_url="https://cdn.example.com",
        keys=KeyTemplate(),
    )
    ended, samples = 0, list[Sample]()

    class Counting(Copier):
        async def copy(self, wanted: WantedFile) -> CopyResult:
            nonlocal ended
            result = await super().copy(wanted)
            ended += 1
            return result

    async with (
        AzureBlobSource(
            servers.azure_account_url, [CONTAINER], AzureCredentials(os.environ["AZURE_STORAGE_KEY"])
        ) as source,
        S3Target(Bucket(servers.bucket, "us-east-1", endpoint_url)) as target,
    ):
        copier = Counting(source, target, rules, CopyLimits(in_flight=IN_FLIGHT, max_attempts=50))

        async def sample() -> None:
            last = 0
            while True:
                await asyncio.sleep(EVERY)
                now = time.monotonic() - burst.began
                samples.append(Sample(now, (ended - last) / EVERY, copier.target_pace.facts.limit))
                last = ended

        burst.began = time.monotonic()
        sampling = asyncio.create_task(sample())
        await transfer([WantedFile(SourceFile(CONTAINER, str(n))) for n in range(FILES)], copier, lambda _: None)
        sampling.cancel()
    return samples


def _drawn(samples: list[Sample]) -> str:
    """Two lines over time, and the burst as a grey band."""
    width, height, left, top = 760, 300, 50, 30
    end, most = samples[-1].at, max(s.files for s in samples)

    def x(at: float) -> float:
        return round(left + at / end * width, 1)

    def line(points: list[tuple[float, float]], colour: str) -> str:
        text = " ".join(f"{x(at)},{round(top + height * (1 - share), 1)}" for at, share in points)
        return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="2"/>'

    seconds = "".join(
        f'<text x="{x(at)}" y="{top + height + 18}" text-anchor="middle">{at} s</text>'
        for at in range(0, int(end) + 1, 2)
    )
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {top + height + 30}"'
                ' font-family="sans-serif" font-size="12">'
            ),
            '<rect width="100%" height="100%" fill="white"/>',
            f'<rect x="{x(BURST[0])}" y="{top}" width="{x(BURST[1]) - x(BURST[0])}" height="{height}" fill="#eee"/>',
            f'<text x="{x(BURST[0]) + 4}" y="{top + 14}" fill="#666">nine of ten PUTs: 503 SlowDown</text>',
            line([(s.at, s.files / most) for s in samples], "#1f77b4"),
            line([(s.at, s.limit / IN_FLIGHT) for s in samples], "#d62728"),
            f'<text x="{left}" y="{top - 10}" fill="#1f77b4">files a second (top: {most:.0f})</text>',
            f'<text x="{left + 240}" y="{top - 10}" fill="#d62728">requests at once (top: {IN_FLIGHT})</text>',
            f'<line x1="{left}" y1="{top + height}" x2="{left + width}" y2="{top + height}" stroke="black"/>',
            seconds,
            "</svg>",
        ]
    )


if __name__ == "__main__":
    main()
