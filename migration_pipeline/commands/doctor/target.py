"""The target: an object of a random name is written, read, fetched as users fetch it, and removed."""

import json
import secrets
from urllib.parse import quote

from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.http.probe import fetched
from migration_pipeline.adapters.s3.probe import BucketFacts, S3Probe, Stored
from migration_pipeline.commands.doctor.findings import Finding, Findings, What, failure, ok, warning
from migration_pipeline.commands.doctor.proof import BODY, HEADERS, md5, proofs
from migration_pipeline.core.errors import MigrationError
from migration_pipeline.core.ports import Receipt
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings, Target
from migration_pipeline.stores import network_of, open_target_probe


def target(settings: Settings) -> Findings:
    """The object first, then the bucket."""
    found: list[Finding] = []
    try:
        run(_look(settings.target, settings, found))
    finally:
        # What was found before the store refused is told all the same.
        yield from found


async def _look(wanted: Target, settings: Settings, found: list[Finding]) -> None:
    key = f"{wanted.prefix}.migration-pipeline-probe-{secrets.token_hex(8)}"
    async with open_target_probe(settings) as probe:
        await probe.check()
        receipt = await probe.create(key, BODY, md5(BODY), HEADERS)
        try:
            found += [finding async for finding in proofs(probe, key)]
            found += await _object(probe, key, wanted, network_of(settings))
        except BaseException:
            await probe.remove(key, receipt)
            raise
        found.append(await _removed(probe, key, receipt, wanted.bucket))
        found += _bucket(await probe.facts(wanted.prefix), wanted)


async def _object(probe: S3Probe, key: str, wanted: Target, network: Network) -> list[Finding]:
    found = []
    try:
        found.append(_as_asked(await probe.stored(key), wanted))
    except MigrationError as error:
        found.append(warning(What.TARGET_STORED, f"cannot be looked at: {error}", "Look at an object yourself."))
    url = f"{wanted.public_base_url}/{quote(key)}"
    status, body = await fetched(url, network)
    if body == BODY:
        found.append(ok(What.TARGET_PUBLIC, f"objects are read under {wanted.public_base_url}"))
    else:
        answer = "there is no answer" if status is None else f"the answer is {status}"
        found.append(
            warning(
                What.TARGET_PUBLIC,
                f"an object cannot be read under {wanted.public_base_url}: {answer}.",
                "New references begin so: right only where clients sign them or a network lets them in.",
            )
        )
    return found


async def _removed(probe: S3Probe, key: str, receipt: Receipt, bucket: str) -> Finding:
    try:
        await probe.remove(key, receipt)
    except MigrationError as error:
        return failure(
            What.TARGET,
            f"writes, but does not remove: {error}. The object {key!r} is left.",
            "Grant s3:DeleteObject, on a bucket with versioning s3:DeleteObjectVersion too; remove that object.",
        )
    return ok(What.TARGET, f"writes, reads and removes objects in {bucket}")


def _as_asked(stored: Stored, wanted: Target) -> Finding:
    asked = {"storage_class": wanted.storage_class, "encryption": wanted.encryption}
    wrong = [
        f"{name} is {getattr(stored, name)} and not {value}"
        for name, value in asked.items()
        if value is not None and getattr(stored, name) != value
    ]
    if wanted.tags and stored.tags is not None and stored.tags != wanted.tags:
        wrong.append(f"tags are {dict(stored.tags)}")
    if wrong:
        return failure(What.TARGET_STORED, f"of an object just written, {'; '.join(wrong)}.", "Mend [target].")
    if wanted.tags and stored.tags is None:
        return warning(What.TARGET_STORED, "tags were sent, and may not be read.", "Grant s3:GetObjectTagging to see.")
    return ok(What.TARGET_STORED, f"{stored.storage_class}, encryption {stored.encryption or 'not said'}")


def _bucket(facts: BucketFacts, wanted: Target) -> Findings:
    if facts.region is not None and facts.region != wanted.region:
        yield failure(What.TARGET_REGION, f"the bucket is in {facts.region}.", f"Set target.region to {facts.region}.")
    else:
        yield ok(What.TARGET_REGION, facts.region or "the store does not say")
    if facts.versioning is None:
        yield warning(What.TARGET_VERSIONING, _UNSEEN, "Grant s3:GetBucketVersioning to see.")
    else:
        needs = ": erasing needs s3:DeleteObjectVersion" if facts.versioning != "Off" else ""
        yield ok(What.TARGET_VERSIONING, f"{facts.versioning}{needs}")
    if facts.encryption is None:
        yield warning(What.TARGET_ENCRYPTION, _UNSEEN, "Grant s3:GetEncryptionConfiguration to see.")
    else:
        yield ok(What.TARGET_ENCRYPTION, facts.encryption or "the store's own default")
    if facts.locked is None:
        yield warning(What.TARGET_LOCK, _UNSEEN, "Grant s3:GetBucketObjectLockConfiguration to see.")
    elif facts.locked:
        yield warning(
            What.TARGET_LOCK,
            f"the bucket keeps every object: {facts.locked}. Copies cannot be removed before: not by erasing, and not "
            "where one proves damaged.",
            "Right where that is meant; else take the default retention off until the migration is over.",
        )
    else:
        yield ok(What.TARGET_LOCK, "objects are not kept against removal")
    if facts.aborts_uploads:
        yield ok(What.TARGET_UPLOADS, "a rule drops their parts")
    elif facts.aborts_uploads is None:
        yield warning(What.TARGET_UPLOADS, _UNSEEN, "Grant s3:GetLifecycleConfiguration to see.")
    else:
        yield warning(
            What.TARGET_UPLOADS,
            "no rule drops the parts of uploads that a crash left behind: they are billed for ever.",
            f"Add to the bucket's lifecycle rules: {json.dumps(lifecycle_rule(wanted.prefix))}",
        )


_UNSEEN = "the credentials may not ask."


def lifecycle_rule(prefix: str) -> dict[str, object]:
    """A rule as `aws s3api put-bucket-lifecycle-configuration` takes it; uploads of ours end within hours."""
    return {
        "ID": "abort-incomplete-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
