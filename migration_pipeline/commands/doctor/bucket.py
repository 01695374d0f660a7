"""What the bucket's own configuration says about uploads; nothing is asked of the store here."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from migration_pipeline.adapters.s3.probe import aborts_uploads
from migration_pipeline.adapters.s3.write_path import BucketSetUp, Configuration, Told, private
from migration_pipeline.commands.doctor import remedies
from migration_pipeline.commands.doctor.findings import Finding, Findings, WritePath, failure, ok, warning
from migration_pipeline.commands.doctor.uploading import migrated_prefixes
from migration_pipeline.settings import Settings, Target
from migration_pipeline.stores import bucket_urls

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_FOR_READERS = ("BlockPublicPolicy", "RestrictPublicBuckets")
"""Those that keep a bucket policy from letting everybody read: "Blocking public access to your Amazon S3 storage"."""
_BY_PLACE = re.compile(r"aws:(sourcevpce?|sourceip|vpcsourceip|sourcevpcarn)$", re.IGNORECASE)
_AWS_HOST = re.compile(r"\.amazonaws\.com(\.cn)?$")
_REGION = re.compile(r"(?:^|\.)s3(?:-fips)?[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)(?:\.vpce)?\.amazonaws\.com")
_SHORT_DAYS = 7


class Way(NamedTuple):
    """How files are to be written and read.

    Attributes:
        uploads: what keys of uploads begin with, up to the profile.
        readable: whether a probe object was read as clients will read it.
    """

    settings: Settings
    uploads: str
    readable: bool

    @property
    def target(self) -> Target:
        """Where files go."""
        return self.settings.target

    @property
    def signed(self) -> bool:
        """Whether clients read by signed URLs."""
        return self.settings.uploads.reads == "signed"

    @property
    def from_bucket(self) -> bool:
        """Whether everybody is to read from the bucket itself, without a CDN in between."""
        return not self.signed and serves_itself(self.settings)


def serves_itself(settings: Settings) -> bool:
    """Whether public URLs lead to the bucket itself."""
    base = settings.target.public_base_url
    host = urlsplit(base).hostname or ""
    return base.startswith(tuple(bucket_urls(settings))) or _AWS_HOST.search(host) is not None


def bucket(found: BucketSetUp, way: Way) -> Findings:
    """All of it."""
    yield _region(found, way.target)
    yield _public_access(found.public_access_block, way)
    yield from _policy(found, way)
    yield _encryption(found.encryption, way.target)
    yield _versioning(found.versioning)
    yield from _lifecycle(found.lifecycle, way)
    yield _ownership(found.ownership, way.target)
    yield _network(found, way.target)


def days_to_abort(told: Told, prefix: str) -> int | None:
    """After how many days the parts of abandoned uploads go; `None` for never."""
    rules = [rule for rule in (told.answer or {}).get("Rules", []) if aborts_uploads(rule, prefix)]
    return min((int(rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]) for rule in rules), default=None)


def _unseen(what: WritePath, told: Told) -> Finding:
    return warning(what, told.why, told.remedy)


def _region(found: BucketSetUp, target: Target) -> Finding:
    endpoint = _REGION.search(found.host)
    named = {"target.region": target.region, "the endpoint": endpoint[1] if endpoint else None}
    if found.region is None:
        wrong = [f"target.region is {target.region}"] if endpoint and endpoint[1] != target.region else []
        if not wrong:
            return ok(WritePath.REGION, f"the store does not say; URLs are signed for {target.region}")
        return failure(WritePath.REGION, f"the endpoint is of {named['the endpoint']}; {wrong[0]}.", "Mend [target].")
    wrong = [f"{name} says {region}" for name, region in named.items() if region and region != found.region]
    if wrong:
        return failure(
            WritePath.REGION,
            f"the bucket is in {found.region}; {', and '.join(wrong)}: S3 refuses or redirects upload URLs that are "
            "signed so, and browsers do not follow.",
            f"Set target.region, the region in target.endpoint_url, and the app's own setting, to {found.region}.",
        )
    return ok(WritePath.REGION, found.region)


def _public_access(told: Told, way: Way) -> Finding:
    what = WritePath.PUBLIC_ACCESS
    if told.answer is None:
        return _unseen(what, told)
    blocks = told.answer.get("PublicAccessBlockConfiguration", {})
    on = [name for name in _BLOCKS if blocks.get(name)]
    listed = ", ".join(on) or "none is set on the bucket; its account may have some of its own"
    if not way.from_bucket:
        if len(on) == len(_BLOCKS):
            return ok(what, "all on, as is right where nobody reads from the bucket itself")
        whole = dict.fromkeys(_BLOCKS, True)
        remedy = remedies.aws(way.target, "put-public-access-block", public_access_block_configuration=whole)
        return warning(what, f"{listed}: objects could be made readable past the CDN or the app.", remedy)
    if set(on) & set(_FOR_READERS) and not way.readable:
        some = {name: name not in _FOR_READERS for name in _BLOCKS}
        remedy = remedies.aws(way.target, "put-public-access-block", public_access_block_configuration=some)
        return failure(
            what,
            f"{listed}: no bucket policy can let everybody read, as target.public_base_url wants.",
            f"Put a CDN before the bucket and name it in target.public_base_url; or, if all files are for everybody: "
            f"{remedy} (the account may block it as well)",
        )
    return ok(what, listed)


def _policy(found: BucketSetUp, way: Way) -> Findings:
    what = WritePath.POLICY
    if found.policy_status.answer is None:
        yield _unseen(what, found.policy_status)
    else:
        public = found.policy_status.answer.get("PolicyStatus", {}).get("IsPublic", False)
        if public and not way.from_bucket:
            readers = "by URLs that the app signs" if way.signed else "through the CDN"
            yield warning(
                what,
                f"it lets everybody in, though files are to be read {readers} alone.",
                "Take the statement with Principal * out of the bucket's policy.",
            )
        elif not public and way.from_bucket and not way.readable:
            yield failure(what, "it lets nobody read.", allow_reads(found.policy, way))
        else:
            yield ok(what, "it is public" if public else "it is not public")
    if found.policy.answer is None:
        yield _unseen(what, found.policy)
        return
    keys = sorted(set(_denied_by_place(found.policy.answer)))
    if keys:
        yield warning(
            what,
            f"a Deny depends on {', '.join(keys)}: users' browsers come from elsewhere than this machine, and may be "
            "refused where it is not.",
            f"Leave s3:PutObject and s3:GetObject on {' and '.join(remedies.resources(way.target, way.uploads))} out "
            "of that statement, or try an upload from outside.",
        )


def allow_reads(policy: Told, way: Way) -> str:
    """The bucket policy that lets clients read, with what is there already."""
    statement = (remedies.public_read if way.from_bucket else remedies.cdn_read)(way.target, way.uploads)
    if policy.answer is None:
        return f"Add to the bucket's policy: {json.dumps(statement)}"
    whole = remedies.merged_policy(policy.answer, statement)
    return remedies.aws(way.target, "put-bucket-policy", policy=whole)


def _denied_by_place(policy: Configuration) -> Iterator[str]:
    """Condition keys of Deny statements that depend on where a request comes from."""
    try:
        statements = json.loads(policy.get("Policy", "{}")).get("Statement", [])
    except ValueError:
        return
    for statement in statements if isinstance(statements, list) else [statements]:
        if statement.get("Effect") != "Deny":
            continue
        for keys in statement.get("Condition", {}).values():
            yield from (key for key in keys if _BY_PLACE.match(key))


def _encryption(told: Told, target: Target) -> Finding:
    what = WritePath.ENCRYPTION
    if told.answer is None:
        return _unseen(what, told)
    rules = told.answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    default: Mapping[str, Any] = rules[0].get("ApplyServerSideEncryptionByDefault", {}) if rules else {}
    algorithm, key = default.get("SSEAlgorithm"), default.get("KMSMasterKeyID") or ""
    wanted, wanted_key = target.encryption, target.kms_key_id
    same_key = not wanted_key or key == wanted_key or key.endswith(f"/{wanted_key}") or wanted_key.endswith(f"/{key}")
    if wanted is None or (algorithm == wanted and same_key):
        return ok(what, f"{algorithm or 'none that the store names'} by default")
    asked = {"SSEAlgorithm": wanted} | ({"KMSMasterKeyID": wanted_key} if wanted_key else {})
    wished = {"Rules": [{"ApplyServerSideEncryptionByDefault": asked}]}
    command = remedies.aws(target, "put-bucket-encryption", server_side_encryption_configuration=wished)
    return warning(
        what,
        f"objects that name none get {algorithm or 'none'}{f' with key {key}' if key else ''}, and copies "
        f"of the migration {wanted}{f' with key {wanted_key}' if wanted_key else ''}.",
        f"Set UPLOADS_S3_ENCRYPTION in the app, or: {command}",
    )


def _versioning(told: Told) -> Finding:
    if told.answer is None:
        return _unseen(WritePath.VERSIONING, told)
    status = told.answer.get("Status", "Off")
    if status == "Off":
        return ok(WritePath.VERSIONING, "Off: what is deleted or replaced is gone")
    return ok(WritePath.VERSIONING, f"{status}: erasing needs s3:DeleteObjectVersion; old versions are billed")


def _lifecycle(told: Told, way: Way) -> Findings:
    what, target = WritePath.LIFECYCLE, way.target
    if told.answer is None:
        yield _unseen(what, told)
        return
    days = days_to_abort(told, target.prefix)
    if days is None:
        merged = remedies.merged_lifecycle(told.answer, target.prefix)
        yield warning(
            what,
            "no rule drops the parts of uploads that a crash left behind: they are billed for ever.",
            f"doctor --write-path --fix adds one; or: {remedies.put_lifecycle(target, merged)}",
        )
    elif days < _SHORT_DAYS:
        yield warning(
            what,
            f"the parts of abandoned uploads go after {days} days, and a run may live for {_SHORT_DAYS}.",
            f"Set DaysAfterInitiation of that rule to {_SHORT_DAYS} or more.",
        )
    else:
        yield ok(what, f"the parts of abandoned uploads go after {days} days")
    for rule in told.answer.get("Rules", []):
        if _removes_files(rule, [*migrated_prefixes(way.settings), way.uploads]):
            yield warning(
                what,
                f"rule {rule.get('ID', '')!r} removes files by itself: {json.dumps(rule['Expiration'], default=str)}.",
                "Turn it off, or give it a prefix that neither migrated files nor uploads have.",
            )


def _removes_files(rule: Configuration, prefixes: Sequence[str]) -> bool:
    """Whether a rule ends files below a prefix, all of them or some."""
    condition = rule.get("Filter", rule)
    begin = condition.get("And", condition).get("Prefix", "")
    return (
        rule.get("Status") == "Enabled"
        and bool(rule.get("Expiration", {}).keys() & {"Days", "Date"})
        and any(prefix.startswith(begin) or begin.startswith(prefix) for prefix in prefixes)
    )


def _ownership(told: Told, target: Target) -> Finding:
    if told.answer is None:
        return _unseen(WritePath.OWNERSHIP, told)
    rules = told.answer.get("OwnershipControls", {}).get("Rules", [])
    owner = rules[0]["ObjectOwnership"] if rules else "ObjectWriter"
    if owner == "BucketOwnerEnforced":
        return ok(WritePath.OWNERSHIP, "BucketOwnerEnforced: ACLs are off, and policies alone decide")
    controls = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    return warning(
        WritePath.OWNERSHIP,
        f"{owner}: ACLs count, and a file may belong to another account, which alone could open it.",
        remedies.aws(target, "put-bucket-ownership-controls", ownership_controls=controls),
    )


def _network(found: BucketSetUp, target: Target) -> Finding:
    """What names and addresses tell, and what not: Amazon S3 User Guide, "AWS PrivateLink for Amazon S3"."""
    what, host = WritePath.NETWORK, found.host
    if not _AWS_HOST.search(host):
        return ok(what, f"{host} is not AWS's: there are no VPC endpoints")
    if ".vpce." in host:
        return failure(
            what,
            f"{host} is the name of an interface endpoint: upload URLs with it work within its networks alone.",
            f"The app has to sign for https://s3.{target.region}.amazonaws.com: look again with that as "
            "MIGRATION_TARGET__ENDPOINT_URL.",
        )
    if not found.addresses:
        return warning(what, f"{host} does not resolve here.", "Look at this machine's DNS.")
    shown = ", ".join(found.addresses[:3])
    if private(found.addresses):
        return ok(what, f"{host} is at {shown}: a VPC interface endpoint, for this machine; browsers go past it")
    return ok(
        what, f"{host} is at {shown}: no interface endpoint; whether a gateway endpoint is on the way cannot be told"
    )
