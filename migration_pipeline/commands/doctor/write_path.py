"""`doctor --write-path`: the target as the app's clients will use it, before new uploads go there."""

import re
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple
from urllib.parse import urlsplit

from migration_pipeline.adapters.s3.browser import Answer, Browser
from migration_pipeline.adapters.s3.write_path import BucketSetUp
from migration_pipeline.commands.doctor.bucket import Way, allow_reads, bucket
from migration_pipeline.commands.doctor.findings import Finding, Health, WritePath, failure, ok, refusal, warning
from migration_pipeline.commands.doctor.mending import Change, changes_for
from migration_pipeline.commands.doctor.uploading import CACHE, IMAGE, TYPE, Attempts, Tried, name_prefix, names
from migration_pipeline.core.errors import MigrationError, SettingsError
from migration_pipeline.cutover import WRITE_PATH
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings
from migration_pipeline.stores import network_of, open_ledger, open_write_path

_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+")
_STORE = "target"


class Examined(NamedTuple):
    """What was found, and what `--fix` would change."""

    findings: Sequence[Finding]
    changes: Sequence[Change]

    @property
    def failed(self) -> bool:
        """Whether anything is a failure."""
        return any(finding.health is Health.FAILURE for finding in self.findings)


def examine_write_path(settings: Settings, origins: Sequence[str] = ()) -> Examined:
    """Try uploads, look at the bucket, and keep the result in the ledger for the cut-over.

    Args:
        settings: the migration.
        origins: instead of `uploads.origins`.

    Raises:
        SettingsError: an origin is none.
    """
    tried = checked(origins or settings.uploads.origins)
    found: list[Finding] = [names(settings)]
    changes: Sequence[Change] = ()
    try:
        changes = run(_look(settings, tried, found))
    except MigrationError as error:
        # What was found before the store refused is told all the same.
        found.append(refusal(_STORE, error))
    return Examined([*found, _kept(settings, tried, found)], changes)


def checked(origins: Sequence[str]) -> list[str]:
    """Origins as browsers send them; raises `SettingsError` for what is none."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin) or urlsplit(origin).port in (80, 443):
            raise SettingsError(
                f"{origin!r} is no origin as browsers send it.",
                setting="uploads.origins",
                remedy="Scheme, host in lower case (as xn--… where it is not ASCII), and a port only where it is not "
                "the scheme's own: https://app.example.com.",
            )
    return list(dict.fromkeys(origins))


async def _look(settings: Settings, origins: Sequence[str], found: list[Finding]) -> Sequence[Change]:
    async with open_write_path(settings) as store:
        await store.check()
        attempts = Attempts(settings, store, Browser(network_of(settings)))
        try:
            set_up = await store.set_up()
            tried = await attempts.try_all(origins, set_up.cors, found)
            way = Way(settings, name_prefix(settings), tried.readable)
            found.append(_read(tried, set_up, way))
            if way.signed:
                found += _hidden(await attempts.read_without_signature())
            found += bucket(set_up, way)
        finally:
            found.append(await attempts.remove())
    return changes_for(settings, set_up, tried.refused)


def _read(tried: Tried, set_up: BucketSetUp, way: Way) -> Finding:
    """How reading a probe object ended."""
    what, answer = WritePath.READ, tried.read
    where = "by a signed URL" if way.signed else f"under {way.target.public_base_url}"
    if answer is None:
        return failure(what, "no upload worked, so that nothing could be read.", "Mend uploads first.")
    if tried.readable:
        return _as_sent(answer, where)
    if answer.good:
        return _otherwise(answer, where)
    remedy = "Grant s3:GetObject." if way.signed else _reason(set_up, way)
    return failure(what, f"an upload cannot be read {where}: {answer.said}.", remedy)


def _as_sent(answer: Answer, where: str) -> Finding:
    """The bytes are right; are the headers?"""
    problems = [
        f"{name} is {answer.headers.get(name.lower())!r} and not {wanted!r}"
        for name, wanted in (("Content-Type", TYPE), ("Cache-Control", CACHE))
        if answer.headers.get(name.lower()) != wanted
    ]
    if problems:
        said = f"an upload is read {where}, but {'; '.join(problems)}."
        return warning(WritePath.READ, said, "Have what stands before the bucket pass these headers on.")
    return ok(WritePath.READ, f"an upload is read {where}, with type and Cache-Control")


def _otherwise(answer: Answer, where: str) -> Finding:
    """Something is there, with other bytes."""
    content_type = answer.headers.get("content-type", "something without a type")
    if content_type.startswith("image/"):
        remedy = "Right only if what stands before the bucket is meant to alter images."
        return warning(WritePath.READ, f"an upload is read {where} with other bytes than were sent.", remedy)
    said = f"{where}, there is {content_type} in place of the image."
    return failure(WritePath.READ, said, "Have target.public_base_url lead to the bucket's keys.")


def _reason(set_up: BucketSetUp, way: Way) -> str:
    """What keeps everybody from reading."""
    policy = allow_reads(set_up.policy, way)
    if way.from_bucket:
        kms = " No policy opens files under a KMS key to everybody." if way.target.encryption == "aws:kms" else ""
        return f"Set uploads.reads to signed if the app signs.{kms} Else, once block public access lets it: {policy}"
    kms = " Its key's policy has to let CloudFront decrypt." if way.target.encryption == "aws:kms" else ""
    return f"Let the CDN read; for CloudFront, make an origin access control for it.{kms} Then: {policy}"


def _hidden(answer: Answer | None) -> list[Finding]:
    """Files that the app signs URLs for should be read by nobody else."""
    if answer is None or answer.body != IMAGE:
        return []
    said = "an upload is also read without a signature, by whoever knows its name."
    return [warning(WritePath.READ, said, "Set uploads.reads to public if that is meant; else close the bucket.")]


def _kept(settings: Settings, tried: Sequence[str], found: Sequence[Finding]) -> Finding:
    """Keep the result for the cut-over's first gate."""
    untried = [origin for origin in settings.uploads.origins if origin not in tried]
    if untried:
        said = f"no: {', '.join(untried)} of uploads.origins was not tried."
        return warning(WritePath.KEPT, said, "Look again without --origin.")
    failures = sum(finding.health is Health.FAILURE for finding in found)
    try:
        with closing(open_ledger(settings, create=True)) as ledger:
            ledger.remember(WRITE_PATH, {"at": ledger.now().isoformat(), "failures": failures})
    except MigrationError as error:
        return failure(WritePath.KEPT, f"no: {error}", "Look again once the ledger is there.")
    return ok(WritePath.KEPT, f"with {failures} failures")
