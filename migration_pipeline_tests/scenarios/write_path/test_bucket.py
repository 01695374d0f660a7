"""What the bucket is set up like, and the names that uploads get."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest

from migration_pipeline.adapters.s3.write_path import BucketSetUp, Told, private
from migration_pipeline.commands.doctor import Health
from migration_pipeline.commands.doctor.bucket import Way, bucket
from migration_pipeline.commands.doctor.findings import WritePath
from migration_pipeline.commands.doctor.remedies import merged_lifecycle
from migration_pipeline.commands.doctor.write_path import checked, examine_write_path
from migration_pipeline.core.errors import SettingsError
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline_tests.moto_server import MotoServer
from migration_pipeline_tests.scenarios.write_path.conftest import DENIED, EXPIRES, Place, new_place


def test_what_a_bucket_is_set_up_like(moto_place: Place) -> None:
    """Each line in a state that is well, and in others."""
    place, client, where = moto_place, moto_place.client, {"Bucket": moto_place.name}
    place.open_to_all()
    told = place.told()
    healths = {what: told[what][0].health for what in WritePath}
    assert healths[WritePath.UNSIGNED] is Health.FAILURE  # moto lets anybody write
    assert (healths[WritePath.PUBLIC_ACCESS], healths[WritePath.POLICY]) == (Health.OK, Health.OK)
    assert (healths[WritePath.OWNERSHIP], healths[WritePath.LIFECYCLE]) == (Health.WARNING, Health.WARNING)
    assert place.held() == []

    client.put_bucket_ownership_controls(
        **where, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    client.put_bucket_lifecycle_configuration(**where, LifecycleConfiguration={"Rules": [EXPIRES]})
    behind_cdn = {"MIGRATION_TARGET__PUBLIC_BASE_URL": "http://127.0.0.1:9"}
    told = place.told(**behind_cdn, MIGRATION_TARGET__ENCRYPTION="AES256")
    assert told[WritePath.OWNERSHIP][0].health is Health.OK
    assert [finding.health for finding in told[WritePath.LIFECYCLE]] == [Health.WARNING]  # for logs alone
    assert told[WritePath.PUBLIC_ACCESS][0].health is Health.WARNING
    assert told[WritePath.POLICY][0].health is Health.WARNING
    assert told[WritePath.ENCRYPTION][0].health is Health.WARNING

    blocks = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    client.put_public_access_block(**where, PublicAccessBlockConfiguration=blocks)
    everything = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    client.put_bucket_encryption(**where, ServerSideEncryptionConfiguration={"Rules": [everything]})
    whole = {**EXPIRES, "Filter": {"Prefix": "u/"}}
    rules = merged_lifecycle({"Rules": [whole]}, "")
    client.put_bucket_lifecycle_configuration(**where, LifecycleConfiguration={"Rules": rules["Rules"]})
    client.delete_bucket_policy(**where)
    told = place.told(**behind_cdn, MIGRATION_TARGET__ENCRYPTION="AES256")
    for what in (WritePath.PUBLIC_ACCESS, WritePath.ENCRYPTION, WritePath.POLICY):
        assert told[what][0].health is Health.OK, what
    assert [finding.health for finding in told[WritePath.LIFECYCLE]] == [Health.OK, Health.WARNING]  # uploads expire

    # Everybody is to read from the bucket itself, which is closed.
    told = place.told()
    assert (told[WritePath.READ][0].health, told[WritePath.PUBLIC_ACCESS][0].health) == (Health.FAILURE, Health.FAILURE)
    assert '"BlockPublicPolicy": false, "RestrictPublicBuckets": false' in told[WritePath.PUBLIC_ACCESS][0].remedy

    short = {**rules["Rules"][1], "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}
    client.put_bucket_lifecycle_configuration(**where, LifecycleConfiguration={"Rules": [short]})
    assert place.health(WritePath.LIFECYCLE) == [Health.WARNING]


def test_the_wrong_region(sandbox: Sandbox, moto: MotoServer, database: str, tmp_path: Path) -> None:
    place = new_place(sandbox, moto.endpoint_url, tmp_path, database)
    name = f"{place.name}eu"
    with (
        closing(place.client),
        closing(boto3.client("s3", endpoint_url=moto.endpoint_url, region_name="eu-west-3")) as eu,
    ):
        eu.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
        there = {"MIGRATION_TARGET__BUCKET": name}
        assert place.health(WritePath.REGION, **there) == [Health.FAILURE]
        assert place.health(WritePath.REGION, **there, MIGRATION_TARGET__REGION="eu-west-3") == [Health.OK]


def nothing_set(**changes: Any) -> BucketSetUp:
    told = {name: Told({}) for name in BucketSetUp.__dataclass_fields__ if name not in ("region", "host", "addresses")}
    here = {"region": "us-east-1", "host": "s3.us-east-1.amazonaws.com", "addresses": ["52.216.1.1"]}
    return BucketSetUp(**{**told, **here, **changes})


@pytest.mark.parametrize(
    ("what", "changes", "health", "said"),
    [
        (WritePath.NETWORK, {}, Health.OK, "whether a gateway endpoint is on the way cannot be told"),
        (WritePath.NETWORK, {"addresses": ["10.0.3.7", "10.0.4.9"]}, Health.OK, "a VPC interface endpoint"),
        (WritePath.NETWORK, {"addresses": []}, Health.WARNING, "does not resolve"),
        (
            WritePath.NETWORK,
            {"host": "bucket.vpce-0a1b.s3.us-east-1.vpce.amazonaws.com"},
            Health.FAILURE,
            "work within its networks alone",
        ),
        (WritePath.NETWORK, {"host": "storage.example.com"}, Health.OK, "not AWS's"),
        (WritePath.REGION, {"host": "s3.eu-west-1.amazonaws.com"}, Health.FAILURE, "the endpoint says eu-west-1"),
        (WritePath.REGION, {"host": "s3.dualstack.us-east-1.amazonaws.com"}, Health.OK, "us-east-1"),
        (WritePath.REGION, {"region": None, "host": "s3.eu-west-1.amazonaws.com"}, Health.FAILURE, "is of eu-west-1"),
        (WritePath.REGION, {"region": None, "host": "127.0.0.1"}, Health.OK, "does not say"),
    ],
)
def test_names_and_addresses(weed: Place, what: WritePath, changes: Any, health: Health, said: str) -> None:
    way = Way(weed.settings(), "u/", readable=True)
    (found,) = [finding for finding in bucket(nothing_set(**changes), way) if finding.what is what]
    assert (found.health, said in found.said) == (health, True), found


def test_a_policy_that_looks_where_a_request_comes_from(weed: Place) -> None:
    refused = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}
    by_place = {**refused, "Condition": {"StringNotEquals": {"aws:SourceVpce": "vpce-0a1b"}}}
    by_transport = {**refused, "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    for statement, healths in ((by_place, [Health.OK, Health.WARNING]), (by_transport, [Health.OK])):
        policy = Told({"Policy": json.dumps({"Statement": [statement]})})
        found = bucket(nothing_set(policy=policy), Way(weed.settings(), "u/", readable=True))
        assert [finding.health for finding in found if finding.what is WritePath.POLICY] == healths
    assert private(["fd00::1"])
    assert not private(["10.0.0.1", "52.216.1.1"])


def test_what_the_credentials_may_not_ask(weed: Place) -> None:
    with FaultProxy(weed.port, [Fault("status", match=r"^GET \S+\?[a-zA-Z]+ ", answer=DENIED)]) as proxy:
        told = weed.told(**weed.behind(proxy))
        for what in (
            WritePath.PUBLIC_ACCESS, WritePath.POLICY, WritePath.ENCRYPTION, WritePath.VERSIONING, WritePath.LIFECYCLE,
            WritePath.OWNERSHIP,
        ):  # fmt: skip
            assert {(finding.health, finding.said) for finding in told[what]} == {
                (Health.WARNING, "the credentials may not ask.")
            }
            assert "Grant s3:Get" in told[what][0].remedy
        assert examine_write_path(weed.settings(**weed.behind(proxy))).changes == []
        proxy.faults = [Fault("status", match=r"^GET \S+\?[a-zA-Z]+ ")]
        assert "S3 answered 503" in weed.told(**weed.behind(proxy))[WritePath.OWNERSHIP][0].said


def test_names_that_could_be_those_of_migrated_files(weed: Place) -> None:
    assert weed.health(WritePath.KEYS) == [Health.OK]
    template = "photos/{profile}/{name}{extension}"
    told = weed.told(MIGRATION_UPLOADS__KEY_TEMPLATE=template)
    assert told[WritePath.KEYS][0].health is Health.WARNING
    assert told[WritePath.PUT][0].health is Health.OK
    assert "target: uploads.key_template" in weed.told(MIGRATION_UPLOADS__KEY_TEMPLATE="u/{name}{extension}")


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.com/page", "https://App.example.com", "https://app.example.com:443", "app.example.com"],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(SettingsError, match="no origin as browsers send it"):
        checked([origin])
