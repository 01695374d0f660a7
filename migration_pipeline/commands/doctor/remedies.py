"""What would be right, as JSON and as commands of the AWS CLI; and rules merged with those that are there."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from migration_pipeline.adapters.s3.write_path import Configuration
from migration_pipeline.commands.doctor.target import lifecycle_rule
from migration_pipeline.settings import Target
from migration_pipeline.uploads.cors import s3_cors

_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
MOST_CORS_RULES = 100
"""Amazon S3 API Reference, "CORSConfiguration"."""


def aws(target: Target, call: str, **options: object) -> str:
    """A command to copy; options that are no text are given as JSON."""
    given = {"bucket": target.bucket, **options, "region": target.region}
    if target.endpoint_url:
        given["endpoint_url"] = target.endpoint_url
    words = ["aws", "s3api", call]
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value, default=str)]
    return shlex.join(words)


def merged_cors(now: Configuration, origins: Sequence[str]) -> dict[str, Any]:
    """The CORS configuration with a rule for these origins; every rule that is there stays as it is.

    A rule that we made before gets the new origins, too.
    """
    (wanted,) = s3_cors(origins)["CORSRules"]
    rules = [dict(rule) for rule in now.get("CORSRules", [])]
    for rule in rules:
        if _alike(rule, wanted):
            rule["AllowedOrigins"] = list(dict.fromkeys([*rule["AllowedOrigins"], *origins]))
            return {"CORSRules": rules}
    return {"CORSRules": [*rules, {**wanted, "ID": _free_name(wanted["ID"], rules)}]}


def merged_lifecycle(now: Configuration, prefix: str) -> dict[str, Any]:
    """The lifecycle configuration with a rule against abandoned uploads; every rule that is there stays as it is."""
    rules = list(now.get("Rules", []))
    added = lifecycle_rule(prefix)
    if any("Prefix" in rule for rule in rules):
        # The older form; S3 refuses a configuration that holds both.
        added.pop("Filter")
        added["Prefix"] = prefix
    added["ID"] = _free_name(str(added["ID"]), rules)
    return {**now, "Rules": [*rules, added]}


def put_lifecycle(target: Target, configuration: Configuration) -> str:
    """The command that replaces the lifecycle configuration."""
    size = "TransitionDefaultMinimumObjectSize"
    options = {"transition_default_minimum_object_size": configuration[size]} if size in configuration else {}
    rules = {"Rules": configuration["Rules"]}
    return aws(target, "put-bucket-lifecycle-configuration", lifecycle_configuration=rules, **options)


def merged_policy(now: Configuration | None, statement: Mapping[str, Any]) -> dict[str, Any]:
    """The bucket policy with one more statement."""
    policy = json.loads(now["Policy"]) if now and "Policy" in now else {"Version": "2012-10-17", "Statement": []}
    there = policy.get("Statement", [])
    return {**policy, "Statement": [*(there if isinstance(there, list) else [there]), statement]}


def public_read(target: Target, uploads: str) -> dict[str, Any]:
    """A statement that lets everybody read migrated and uploaded files."""
    return {
        "Sid": "EverybodyReads",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": resources(target, uploads),
    }


def cdn_read(target: Target, uploads: str) -> dict[str, Any]:
    """A statement that lets one CloudFront distribution read: Amazon CloudFront Developer Guide, "Restrict access"."""
    partition = _partition(target.region)
    return {
        "Sid": "CloudFrontReads",
        "Effect": "Allow",
        "Principal": {"Service": "cloudfront.amazonaws.com"},
        "Action": "s3:GetObject",
        "Resource": resources(target, uploads),
        "Condition": {"StringEquals": {"AWS:SourceArn": f"arn:{partition}:cloudfront::ACCOUNT:distribution/ID"}},
    }


def resources(target: Target, uploads: str) -> list[str]:
    """What migrated and uploaded files are called in policies."""
    bucket = f"arn:{_partition(target.region)}:s3:::{target.bucket}"
    prefixes = {target.prefix, uploads}
    return [f"{bucket}/*"] if "" in prefixes else [f"{bucket}/{prefix}*" for prefix in sorted(prefixes)]


def _partition(region: str) -> str:
    return next((name for begin, name in _PARTITIONS.items() if region.startswith(begin)), "aws")


def _alike(rule: Configuration, wanted: Configuration) -> bool:
    """Whether a rule is one of ours, origins aside: extending somebody else's might allow more than was meant."""
    return {**rule, "AllowedOrigins": None, "ID": None} == {**wanted, "AllowedOrigins": None, "ID": None} and str(
        rule.get("ID", "")
    ).startswith(wanted["ID"])


def _free_name(name: str, rules: Sequence[Configuration]) -> str:
    taken = {rule.get("ID") for rule in rules}
    numbered = (name if number == 1 else f"{name}-{number}" for number in range(1, len(rules) + 2))
    return next(each for each in numbered if each not in taken)
