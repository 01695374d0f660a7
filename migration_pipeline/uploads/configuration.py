"""Makes an app's uploads from environment variables, so that a store is changed by configuration alone."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, cast

from migration_pipeline.uploads.azure import AzureContainer, AzureUploads
from migration_pipeline.uploads.errors import Misconfigured
from migration_pipeline.uploads.issuer import Uploads
from migration_pipeline.uploads.keys import KeyRules
from migration_pipeline.uploads.rules import IMAGES, Encryption, UploadRules
from migration_pipeline.uploads.s3 import S3Bucket, S3Uploads
from migration_pipeline.uploads.switch import Switch, SwitchedUploads

_MEGABYTE = 1_000_000
_VARIABLES = {
    *("UPLOADS_SWITCH", "UPLOADS_TYPES", "UPLOADS_MAX_BYTES", "UPLOADS_MIN_BYTES", "UPLOADS_EXPIRE_SECONDS"),
    *("UPLOADS_DOWNLOADS_EXPIRE_SECONDS", "UPLOADS_CACHE_CONTROL", "UPLOADS_DIGEST_REQUIRED"),
    *("UPLOADS_AZURE_AUTH", "UPLOADS_AZURE_ACCOUNT_NAME"),
    *("UPLOADS_S3_BUCKET", "UPLOADS_S3_REGION", "UPLOADS_S3_PUBLIC_BASE_URL", "UPLOADS_S3_ENDPOINT_URL"),
    *("UPLOADS_S3_KEY_TEMPLATE", "UPLOADS_S3_MIGRATED_PREFIXES", "UPLOADS_S3_ENCRYPTION", "UPLOADS_S3_KMS_KEY_ID"),
    *("UPLOADS_AZURE_ACCOUNT_URL", "UPLOADS_AZURE_CONTAINER", "UPLOADS_AZURE_OTHER_CONTAINERS"),
    "UPLOADS_AZURE_KEY_TEMPLATE",
}
"""A name with a slip in it must not mean the default."""


def from_environment(environment: Mapping[str, str]) -> Uploads:
    """Uploads as the variables say; docs/uploads.md lists them.

    Both stores behind the switch, as long as the Azure account is named; S3 alone once it is not, where the switch must
    be `after`.

    Raises:
        Misconfigured: naming the variable; the values of secrets are never shown.
    """
    unknown = sorted(name for name in environment if name.startswith("UPLOADS_") and name not in _VARIABLES)
    if unknown:
        raise Misconfigured(f"{', '.join(unknown)}: no such variable")
    rules = _rules(environment)
    switch = Switch.parse(_wanted(environment, "UPLOADS_SWITCH"))
    s3 = S3Uploads(
        S3Bucket(
            name=_wanted(environment, "UPLOADS_S3_BUCKET"),
            region=_wanted(environment, "UPLOADS_S3_REGION"),
            public_base_url=_wanted(environment, "UPLOADS_S3_PUBLIC_BASE_URL"),
            endpoint_url=environment.get("UPLOADS_S3_ENDPOINT_URL") or None,
        ),
        rules,
        keys=_keys(environment, "UPLOADS_S3_KEY_TEMPLATE"),
        migrated_prefixes=_words(environment, "UPLOADS_S3_MIGRATED_PREFIXES") or None,
    )
    if not environment.get("UPLOADS_AZURE_ACCOUNT_URL"):
        if switch.at != "after":
            raise Misconfigured("UPLOADS_AZURE_ACCOUNT_URL is missing: only UPLOADS_SWITCH=after can do without it")
        return s3
    entra = environment.get("UPLOADS_AZURE_AUTH", "key") == "entra"
    azure = AzureUploads(
        AzureContainer(
            account_url=_wanted(environment, "UPLOADS_AZURE_ACCOUNT_URL"),
            name=_wanted(environment, "UPLOADS_AZURE_CONTAINER"),
            account_key=None if entra else _wanted(environment, "AZURE_STORAGE_KEY"),
            credential=_identity() if entra else None,
            account_name=environment.get("UPLOADS_AZURE_ACCOUNT_NAME") or None,
            others=_words(environment, "UPLOADS_AZURE_OTHER_CONTAINERS"),
        ),
        # What S3 encrypts with is nothing to Azure, which encrypts everything.
        replace(rules, encryption=None),
        keys=_keys(environment, "UPLOADS_AZURE_KEY_TEMPLATE"),
    )
    return SwitchedUploads(azure, s3, switch)


def _identity() -> Any:  # noqa: ANN401 - azure-identity is imported late
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - apps with a key need it not

    return DefaultAzureCredential()


def _rules(environment: Mapping[str, str]) -> UploadRules:
    return UploadRules(
        max_bytes=_number(environment, "UPLOADS_MAX_BYTES", 10 * _MEGABYTE),
        min_bytes=_number(environment, "UPLOADS_MIN_BYTES", 1),
        types=_types(environment),
        expires_in=timedelta(seconds=_number(environment, "UPLOADS_EXPIRE_SECONDS", 600)),
        download_expires_in=timedelta(seconds=_number(environment, "UPLOADS_DOWNLOADS_EXPIRE_SECONDS", 3600)),
        cache_control=environment.get("UPLOADS_CACHE_CONTROL") or None,
        encryption=_encryption(environment),
        digest_required=_truth(environment, "UPLOADS_DIGEST_REQUIRED"),
    )


def _types(environment: Mapping[str, str]) -> Mapping[str, str]:
    wanted = _words(environment, "UPLOADS_TYPES")
    unknown = [each for each in wanted if each not in IMAGES]
    if unknown:
        raise Misconfigured(f"UPLOADS_TYPES: {', '.join(unknown)} not known; known are {', '.join(IMAGES)}")
    return {each: IMAGES[each] for each in wanted} if wanted else IMAGES


def _encryption(environment: Mapping[str, str]) -> Encryption | None:
    algorithm = environment.get("UPLOADS_S3_ENCRYPTION")
    key = environment.get("UPLOADS_S3_KMS_KEY_ID") or None
    # Any other word is refused by Encryption itself.
    return Encryption(cast("Literal['AES256', 'aws:kms']", algorithm), key) if algorithm else None


def _keys(environment: Mapping[str, str], name: str) -> KeyRules | None:
    return KeyRules(environment[name]) if environment.get(name) else None


def _words(environment: Mapping[str, str], name: str) -> list[str]:
    return environment.get(name, "").replace(",", " ").split()


def _wanted(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise Misconfigured(f"{name} is missing")
    return environment[name]


def _truth(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name) or "false"
    if text not in ("true", "false"):
        raise Misconfigured(f"{name} is {text!r}: must be true or false")
    return text == "true"


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isascii() or not text.isdecimal():
        raise Misconfigured(f"{name} is {text!r}: must be a whole number")
    return int(text)
