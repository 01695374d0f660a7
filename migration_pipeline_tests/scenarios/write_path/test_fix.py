"""`--fix` shows first, adds to what is there, and overwrites nothing."""

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from migration_pipeline.commands.doctor import mending
from migration_pipeline.commands.doctor.findings import WritePath
from migration_pipeline.commands.doctor.remedies import merged_cors, merged_lifecycle, merged_policy, put_lifecycle
from migration_pipeline.commands.doctor.write_path import examine_write_path
from migration_pipeline.core.errors import Fatal
from migration_pipeline.cutover import WRITE_PATH
from migration_pipeline.sandbox.fault_proxy import Fault, FaultProxy
from migration_pipeline.settings import Target
from migration_pipeline.stores import open_ledger
from migration_pipeline.uploads.cors import s3_cors
from migration_pipeline_tests.scenarios.write_path.conftest import DENIED, EXPIRES, FOREIGN_RULE, ORIGIN, SECOND, Place


def test_fix_shows_first_and_adds_to_what_is_there(moto_place: Place, weed: Place) -> None:
    """CORS on SeaweedFS, which enforces it; a lifecycle with every kind of rule on moto."""
    weed.client.put_bucket_cors(Bucket=weed.name, CORSConfiguration={"CORSRules": [FOREIGN_RULE]})
    weed.client.put_bucket_lifecycle_configuration(Bucket=weed.name, LifecycleConfiguration={"Rules": [EXPIRES]})
    weed.open_to_all()
    before = weed.cors(), weed.lifecycle()
    shown = weed.run("--fix")
    assert shown.exit_code == 2, shown.output
    assert (weed.cors(), weed.lifecycle()) == before
    assert f'+        "{ORIGIN}"' in shown.output
    assert '+      "AbortIncompleteMultipartUpload": {' in shown.output
    assert "Nothing was written" in shown.output
    assert not any(line.startswith("-") and not line.startswith("---") for line in shown.output.splitlines())
    plain = json.loads(weed.run("--json").output)
    assert {line["what"] for line in plain} == set(WritePath)

    applied = weed.run("--fix", "--apply", "--by", "ines@laptop")
    assert applied.exit_code == 0, applied.output
    assert applied.output.index("+++ cors then") < applied.output.index("pages of https://app.example.com may upload")
    rules = weed.cors()
    assert (rules[0], rules[1]["AllowedOrigins"], len(rules)) == (FOREIGN_RULE, [ORIGIN], 2)
    assert weed.lifecycle()[0] == before[1][0]
    assert len(weed.lifecycle()) == 2
    with closing(open_ledger(weed.settings())) as ledger:
        acts = ledger.overview.acts(limit=10)
        assert ledger.remembered(WRITE_PATH)["failures"] == 0
    assert [(act.who, act.what, act.details["kind"]) for act in reversed(acts)] == [
        ("ines@laptop", "write path", "cors"),
        ("ines@laptop", "write path", "lifecycle"),
    ]
    # Nothing is left to do, and a second origin goes into the rule that is ours.
    again = json.loads(weed.run("--fix", "--apply", "--json").output)
    assert (again["changes"], weed.cors()) == ([], rules)
    weed.run("--fix", "--apply", MIGRATION_UPLOADS__ORIGINS=json.dumps([ORIGIN, SECOND]))
    assert [rule["AllowedOrigins"] for rule in weed.cors()] == [FOREIGN_RULE["AllowedOrigins"], [ORIGIN, SECOND]]

    place = moto_place
    tagged = {"And": {"Prefix": "x/", "Tags": [{"Key": "kind", "Value": "draft"}]}}
    ends = {"Date": datetime(2030, 1, 1, tzinfo=UTC)}
    colder = [{"Days": 9, "StorageClass": "GLACIER"}]
    all_kinds = [
        EXPIRES,
        {"ID": "drafts", "Status": "Disabled", "Filter": tagged, "Expiration": ends},
        {**EXPIRES, "ID": "old", "NoncurrentVersionExpiration": {"NoncurrentDays": 9}},
        {"ID": "cold", "Status": "Enabled", "Filter": {"Prefix": "z/"}, "Transitions": colder},
    ]
    place.client.put_bucket_lifecycle_configuration(Bucket=place.name, LifecycleConfiguration={"Rules": all_kinds})
    kept = place.lifecycle()
    place.run("--fix", "--apply")
    assert place.lifecycle()[: len(kept)] == kept
    assert place.lifecycle()[len(kept)]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_what_is_set_for_small_objects_is_sent_again(weed: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of the servers keeps it: so it is looked at in the request."""
    header, sent = "x-amz-transition-default-minimum-object-size", []
    document = "<LifecycleConfiguration/>"
    answer = f"200 OK\r\n{header}: varies_by_storage_class\r\nContent-Length: {len(document)}\r\n\r\n{document}"

    def look(request: Any, **_: object) -> None:
        sent.append(request.headers[header])

    session = boto3.Session()
    session.events.register("before-send.s3.PutBucketLifecycleConfiguration", look)
    monkeypatch.setattr(boto3, "Session", lambda **_: session)
    with FaultProxy(weed.port, [Fault("status", match=r"^GET \S+\?lifecycle ", answer=answer)]) as proxy:
        settings = weed.settings(**weed.behind(proxy))
        examined = examine_write_path(settings)
        mending.apply(settings, examined.changes, "ines@laptop")
    assert sent == [b"varies_by_storage_class"]
    assert len(weed.lifecycle()) == 1


def test_fix_leaves_alone_what_it_cannot_write_back(weed: Place) -> None:
    weed.client.put_bucket_cors(Bucket=weed.name, CORSConfiguration={"CORSRules": [FOREIGN_RULE]})
    newer = (
        "<CORSConfiguration><CORSRule><AllowedOrigin>https://a.example.com</AllowedOrigin><AllowedMethod>GET"
        "</AllowedMethod><OnlyOnSundays>true</OnlyOnSundays></CORSRule></CORSConfiguration>"
    )
    answer = f"200 OK\r\nContent-Type: application/xml\r\nContent-Length: {len(newer)}\r\n\r\n{newer}"
    with FaultProxy(weed.port, [Fault("status", match=r"^GET \S+\?cors ", answer=answer)]) as proxy:
        examined = examine_write_path(weed.settings(**weed.behind(proxy)))
        assert [change.kind for change in examined.changes] == ["lifecycle"]
        proxy.faults = []
        assert [change.kind for change in examine_write_path(weed.settings(**weed.behind(proxy))).changes] == [
            "cors",
            "lifecycle",
        ]
        # The store refuses the new rules: said so, noted so, and nothing else is tried.
        proxy.faults = [Fault("status", match=r"^PUT \S+\?cors ", answer=DENIED)]
        done = weed.run("--fix", "--apply", **weed.behind(proxy))
        assert (done.exit_code, "Grant s3:PutBucketCORS." in done.output) == (2, True), done.output
    assert (weed.cors(), weed.lifecycle()) == ([FOREIGN_RULE], None)
    with closing(open_ledger(weed.settings())) as ledger:
        newest = ledger.overview.acts(limit=10)[0]
    assert newest.why.startswith("cors was not written: ")


def test_rules_that_changed_meanwhile_are_not_overwritten(weed: Place) -> None:
    weed.client.put_bucket_cors(Bucket=weed.name, CORSConfiguration={"CORSRules": [FOREIGN_RULE]})
    examined = examine_write_path(weed.settings())
    newer = [{**FOREIGN_RULE, "ID": "others"}]
    weed.client.put_bucket_cors(Bucket=weed.name, CORSConfiguration={"CORSRules": newer})
    with pytest.raises(Fatal, match="changed meanwhile"):
        mending.apply(weed.settings(), examined.changes, "ines@laptop")
    assert weed.cors() == newer


def test_rules_are_merged() -> None:
    ours = s3_cors([ORIGIN])["CORSRules"][0]
    # One of ours by name alone is somebody else's.
    named_alike = {**FOREIGN_RULE, "ID": "uploads"}
    merged = merged_cors({"CORSRules": [named_alike]}, [ORIGIN])["CORSRules"]
    assert merged == [named_alike, {**ours, "ID": "uploads-2"}]
    assert merged_cors({"CORSRules": merged}, [ORIGIN]) == {"CORSRules": merged}
    # The older form of rules, which S3 does not take beside the newer.
    older = {"ID": "logs", "Status": "Enabled", "Prefix": "logs/", "Expiration": {"Days": 30}}
    added = merged_lifecycle({"Rules": [older]}, "files/")["Rules"][1]
    assert (added["Prefix"], "Filter" in added) == ("files/", False)
    sized = merged_lifecycle({"Rules": [], "TransitionDefaultMinimumObjectSize": "varies_by_storage_class"}, "")
    command = put_lifecycle(Target(bucket="b", region="us-east-1", public_base_url="https://b.example.com"), sized)
    assert "--transition-default-minimum-object-size varies_by_storage_class" in command
    policy = {"Policy": json.dumps({"Version": "2012-10-17", "Statement": {"Sid": "one"}})}
    assert merged_policy(policy, {"Sid": "two"})["Statement"] == [{"Sid": "one"}, {"Sid": "two"}]
