"""What S3's answers mean: vendor errors become ours here, by table, and nowhere else."""

import re

from migration_pipeline.core.errors import Fatal, Permanent, Transient
from migration_pipeline.core.model import Outcome
from migration_pipeline.core.ports import KeyTaken

CREDENTIALS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"

_TAKEN = {"PreconditionFailed"}
_FATAL = {
    "AccessDenied": CREDENTIALS,
    "AccountProblem": CREDENTIALS,
    "AllAccessDisabled": "target.bucket",
    "AuthorizationHeaderMalformed": "target.region",
    "ExpiredToken": CREDENTIALS,
    "InvalidAccessKeyId": CREDENTIALS,
    "InvalidBucketName": "target.bucket",
    "InvalidStorageClass": "target.storage_class",
    "InvalidTag": "target.tags",
    "InvalidToken": CREDENTIALS,
    "KMS.DisabledException": "target.kms_key_id",
    "KMS.NotFoundException": "target.kms_key_id",
    "NoSuchBucket": "target.bucket",
    "PermanentRedirect": "target.region",
    "RequestTimeTooSkewed": CREDENTIALS,
    "SignatureDoesNotMatch": CREDENTIALS,
}
_TRANSIENT = {
    "BadDigest",  # the bytes were damaged on the way: what the checksum is for
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "NoSuchUpload",  # an upload in parts that was aborted: the next try begins another
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "XAmzContentSHA256Mismatch",
}
"""Error codes as in the Amazon S3 API Reference, "Error responses"."""

_OVERLOAD = {"RequestTimeout", "ServiceUnavailable", "SlowDown"}
"""Those by which S3 asks for fewer requests: Amazon S3 User Guide, "Best practices design patterns"."""

UNUSABLE = {301: "target.region", 400: CREDENTIALS, 403: CREDENTIALS, 404: "target.bucket"}
"""What HEAD on the bucket answers, and which setting is wrong then."""

REMEDIES = {
    CREDENTIALS: (
        "Give credentials that may PutObject, GetObject, DeleteObject, ListBucket, ListBucketMultipartUploads and "
        "AbortMultipartUpload on target.bucket; check the clock."
    ),
    "target.bucket": "Create the bucket, or name one that exists.",
    "target.region": "Name the bucket's own region.",
    "target.endpoint_url": "Check the URL and the network.",
    "target.storage_class": "Name one that S3 has.",
    "target.tags": "Mend their names and values.",
    "target.kms_key_id": "Name an enabled key that these credentials may use.",
}


def translated(error: Exception) -> Exception:
    """What an error of boto3's means."""
    from botocore import exceptions  # noqa: PLC0415 - 0.15 s that a run without files to copy need not spend

    if isinstance(error, exceptions.ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        retry_after = error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("retry-after", "")
        wait = float(retry_after) if retry_after.isdecimal() else None
        return _by_code(error.response["Error"].get("Code", ""), status, wait)
    if isinstance(error, exceptions.NoCredentialsError):
        return Fatal("no credentials found.", setting=CREDENTIALS, remedy=REMEDIES[CREDENTIALS])
    away = (exceptions.ConnectTimeoutError, exceptions.EndpointConnectionError, exceptions.ReadTimeoutError)
    return Transient(f"S3 did not answer: {type(error).__name__}", overload=isinstance(error, away))


def refused(said: str) -> Exception:
    """What obstore's text means: the answer's code and status stand in it, and nowhere else."""
    code = re.search(r"<Code>([\w.]+)</Code>", said)
    status = re.search(r"status code: (\d{3})", said)
    if status is None and "redirect without LOCATION" in said:
        return _by_code("PermanentRedirect", 301)
    if status is None:
        away = re.search(r"timed out|timeout|connect error|connection refused|dns error", said, re.IGNORECASE)
        told = f"S3 did not answer: {away[0].lower()}" if away else "S3 did not answer: the connection failed"
        return Transient(told, overload=away is not None)
    return _by_code(code[1] if code else "", int(status[1]))


def _by_code(code: str, status: int, retry_after: float | None = None) -> Exception:
    said = f"S3 answered {status} {code}".rstrip()
    if code in _TAKEN or (not code and status == 412):  # noqa: PLR2004 - HTTP's "precondition failed"
        return KeyTaken()
    if code in _FATAL or (not code and status in (401, 403)):
        setting = _FATAL.get(code, CREDENTIALS)
        return Fatal(said, setting=setting, remedy=REMEDIES[setting])
    if code in _TRANSIENT or status in (408, 429) or status >= 500:  # noqa: PLR2004 - HTTP's server errors
        return Transient(said, retry_after, overload=code in _OVERLOAD or status in (408, 429, 503))
    if code == "KeyTooLongError":
        return Permanent(Outcome.TOO_LONG_KEY, said)
    return Permanent(Outcome.TARGET_REFUSED, said)
