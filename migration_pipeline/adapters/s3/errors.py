"""What S3's answers mean: vendor errors become ours here, by table, and nowhere else.

An answer is known by its status and by the code in its XML; what botocore raises, by the class of the error.
"""

import re

from migration_pipeline.adapters.http.answers import code_of, wait
from migration_pipeline.adapters.http.plain import trouble_of
from migration_pipeline.adapters.http.wire import NoAnswer
from migration_pipeline.core.errors import Fatal, Permanent, Transient, Unreachable
from migration_pipeline.core.model import Outcome
from migration_pipeline.core.ports import BytesRefused, KeyTaken

CREDENTIALS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"

_TAKEN = {"PreconditionFailed"}
_FATAL = {
    "AccessDenied": CREDENTIALS,
    "AccessPointNotFound": "target.bucket",
    "AccountProblem": CREDENTIALS,
    "AllAccessDisabled": "target.bucket",
    "AuthorizationHeaderMalformed": "target.region",
    "ExpiredToken": CREDENTIALS,
    "ExpiredTokenException": CREDENTIALS,
    "IllegalLocationConstraintException": "target.region",
    "InvalidAccessKeyId": CREDENTIALS,
    "InvalidBucketName": "target.bucket",
    "InvalidClientTokenId": CREDENTIALS,
    "InvalidPayer": CREDENTIALS,
    "InvalidSecurity": CREDENTIALS,
    "InvalidStorageClass": "target.storage_class",
    "InvalidTag": "target.tags",
    "InvalidToken": CREDENTIALS,
    "NoSuchAccessPoint": "target.bucket",
    "NoSuchBucket": "target.bucket",
    "NotImplemented": "target.endpoint_url",
    "NotSignedUp": CREDENTIALS,
    "PermanentRedirect": "target.region",
    "RequestExpired": CREDENTIALS,
    "RequestTimeTooSkewed": CREDENTIALS,
    "SignatureDoesNotMatch": CREDENTIALS,
    "TokenRefreshRequired": CREDENTIALS,
    "UnauthorizedAccess": CREDENTIALS,
    "UnrecognizedClientException": CREDENTIALS,
}
_TRANSIENT = {
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "NoSuchUpload",  # an upload in parts that was aborted: the next try begins another
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "TemporaryRedirect",  # a new bucket, whose name not every server knows yet
    "XAmzContentSHA256Mismatch",
}
"""Error codes as in the Amazon S3 API Reference, "Error responses", and AWS's "Common errors"."""

_OVERLOAD = {"RequestTimeout", "ServiceUnavailable", "SlowDown"}
"""Those by which S3 asks for fewer requests: Amazon S3 User Guide, "Best practices design patterns"."""
_THROTTLED = re.compile(
    r"throttl|toomanyrequests|limitexceeded|slowdown|throughputexceeded|priorrequestnotcomplete", re.IGNORECASE
)
"""The same in whatever spelling: botocore's own list of throttling codes, and those of KMS behind S3."""

UNUSABLE = {301: "target.region", 307: "target.region", 400: CREDENTIALS, 403: CREDENTIALS, 404: "target.bucket"}
"""What HEAD answers, which has no body and so no code, and which setting is wrong then."""
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken", "RequestExpired", "TokenRefreshRequired"})
"""Codes after which other credentials may do: those in hand are asked for anew, once."""

REMEDIES = {
    CREDENTIALS: (
        "Give credentials that may PutObject, GetObject, DeleteObject, ListBucket, ListBucketMultipartUploads and "
        "AbortMultipartUpload on target.bucket; check the clock."
    ),
    "target.bucket": "Create the bucket, or name one that exists.",
    "target.region": "Name the bucket's own region.",
    "target.endpoint_url": "Check the URL and the network; the store must know conditional writes.",
    "target.storage_class": "Name one that S3 has.",
    "target.tags": "Mend their names and values.",
    "target.kms_key_id": "Name an enabled key that these credentials may use.",
    "network.ca_bundle": "Name a bundle that holds the authority of S3's certificate, or of the proxy's.",
}

_SIGN_IN = {
    "ProfileNotFound": ("the profile is in neither of AWS's files.", "AWS_PROFILE", "Name one that exists."),
    "PartialCredentialsError": ("one of two halves of the credentials is missing.", CREDENTIALS, "Set both."),
    "NoCredentialsError": ("no credentials found.", CREDENTIALS, REMEDIES[CREDENTIALS]),
    "SSOTokenLoadError": ("there is no SSO session.", "AWS_PROFILE", "Run: aws sso login"),
    "UnauthorizedSSOTokenError": ("the SSO session is over.", "AWS_PROFILE", "Run: aws sso login"),
    "TokenRetrievalError": ("the SSO session is over.", "AWS_PROFILE", "Run: aws sso login"),
    "LoginRefreshRequired": ("the login session is over.", "AWS_PROFILE", "Run: aws login"),
    "LoginTokenLoadError": ("there is no login session.", "AWS_PROFILE", "Run: aws login"),
    "RefreshWithMFAUnsupportedError": (
        "credentials with MFA cannot be renewed by a run.",
        "AWS_PROFILE",
        "Use a role that needs no MFA, or aws sso login.",
    ),
    "CredentialRetrievalError": (
        "a provider of credentials failed.",
        CREDENTIALS,
        "Look at the task or instance role, or at credential_process; then try: aws sts get-caller-identity",
    ),
    "MetadataRetrievalError": (
        "the machine's or container's own credentials cannot be had.",
        CREDENTIALS,
        "Look at the instance profile or task role; then try: aws sts get-caller-identity",
    ),
    "InvalidConfigError": ("the profile does not hold together.", "AWS_PROFILE", "Look at ~/.aws/config."),
    "InfiniteLoopConfigError": ("the profiles name each other in a circle.", "AWS_PROFILE", "Look at ~/.aws/config."),
    "ConfigParseError": ("AWS's configuration file cannot be read.", "AWS_CONFIG_FILE", "Look at ~/.aws/config."),
    "UnknownCredentialError": ("the profile names a source that is none.", "AWS_PROFILE", "Look at ~/.aws/config."),
    "MissingDependencyException": (
        "it needs signatures of a kind that is not known here (multi-region access points do).",
        "target.bucket",
        "Name the bucket itself, or an access point in one region.",
    ),
    "ParamValidationError": ("is no name of a bucket.", "target.bucket", REMEDIES["target.bucket"]),
    "InvalidRegionError": ("is no region.", "target.region", REMEDIES["target.region"]),
    "UnsupportedS3ArnError": ("is no access point.", "target.bucket", REMEDIES["target.bucket"]),
    "UnsupportedS3AccesspointConfigurationError": (
        "the access point does not go with FIPS, dual-stack or acceleration as they are set.",
        "target.bucket",
        "Look at AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT and ~/.aws/config.",
    ),
    "UnsupportedS3ConfigurationError": (
        "the settings of AWS's file do not go together for it.",
        "target.bucket",
        "Look at AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT and ~/.aws/config.",
    ),
    "EndpointResolutionError": (
        "there is no endpoint for it with this configuration.",
        "target.bucket",
        "Look at target.region, AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT and ~/.aws/config.",
    ),
    "InvalidProxiesConfigError": ("the proxy's URL is none.", "HTTPS_PROXY", "Write http://host:port."),
    "ValueError": ("does not make a URL.", "target.endpoint_url", REMEDIES["target.endpoint_url"]),
}
"""What botocore raises before it asks S3 at all, by the classes of its errors: what is wrong, where, and what helps."""


def translated(error: Exception) -> Exception:
    """What an error of botocore's means."""
    from botocore import exceptions  # noqa: PLC0415 - 0.15 s that a run without files to copy need not spend

    if isinstance(error, exceptions.ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        retry_after = error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("retry-after")
        # For answers without a body botocore takes the status for the code.
        code = code_of(error.response["Error"].get("Code"))
        if error.operation_name in _OF_STS:
            return _refused_by_sts(code, status)
        if error.operation_name.startswith("Head") and not code and status in UNUSABLE:
            return unusable(status)
        return by_code(code, status, retry_after)
    if trouble := trouble_of(error):
        return unanswered(NoAnswer(trouble))
    for kind in [kind.__name__ for kind in type(error).__mro__]:
        if kind in _SIGN_IN:
            said, setting, remedy = _SIGN_IN[kind]
            return Fatal(said, setting=setting, remedy=remedy)
    return Transient(f"S3 did not answer: {type(error).__name__}")


_OF_STS = {"AssumeRole", "AssumeRoleWithWebIdentity", "AssumeRoleWithSAML", "GetRoleCredentials", "CreateToken"}


def _refused_by_sts(code: str, status: int) -> Exception:
    """A role that may not be taken; its own table, for the same code says another thing there."""
    said = f"the role was refused: {status} {code}".rstrip()
    if _is_throttling(code, status) or status >= 500:  # noqa: PLR2004 - HTTP's server errors
        return Transient(said, overload=True)
    remedy = "Look at the role's trust policy and external id; then try: aws sts get-caller-identity"
    return Fatal(said, setting="AWS_PROFILE", remedy=remedy)


def unanswered(error: NoAnswer) -> Exception:
    """What it means that no answer came."""
    if error.trouble == "certificate":
        setting = "network.ca_bundle"
        return Fatal(f"S3's side: {error}.", setting=setting, remedy=REMEDIES[setting])
    return Transient(f"S3 did not answer: {error}", overload=error.overload)


def unreachable(where: str, meaning: Exception) -> Exception:
    """The same of a first look, where nothing says that anybody was ever there."""
    if not isinstance(meaning, Transient):
        return meaning
    setting = "target.endpoint_url"
    return Unreachable(f"cannot use {where}: {meaning}.", setting=setting, remedy=REMEDIES[setting])


def unusable(status: int, bucket: str = "") -> Fatal:
    """What an answer without a body to HEAD means."""
    setting = UNUSABLE[status]
    said = f"S3 answered {status}" + (f" for bucket {bucket!r}." if bucket else ".")
    return Fatal(said, setting=setting, remedy=REMEDIES[setting])


def by_code(code: str, status: int, retry_after: str | None = None) -> Exception:
    """What an answer of S3 means, by its code, and by its status where it has none."""
    said = f"S3 answered {status} {code}".rstrip()
    setting = _setting(code, status)
    if code in _TAKEN or (not code and status == 412):  # noqa: PLR2004 - HTTP's "precondition failed"
        return KeyTaken()
    if code in {"BadDigest", "InvalidDigest"}:
        return BytesRefused(said)
    if setting is not None:
        return Fatal(said, setting=setting, remedy=REMEDIES[setting])
    throttled = _is_throttling(code, status)
    if throttled or code in _TRANSIENT or status in (307, 408, 429) or status >= 500:  # noqa: PLR2004 - HTTP's server errors
        overload = throttled or code in _OVERLOAD or status in (408, 429, 503)
        return Transient(said, wait(retry_after), overload=overload)
    return Permanent(Outcome.TOO_LONG_KEY if code == "KeyTooLongError" else Outcome.TARGET_REFUSED, said)


def _setting(code: str, status: int) -> str | None:
    """Which setting nothing works with, if it is the whole store that refuses."""
    if code in _FATAL:
        return _FATAL[code]
    if code.startswith("KMS.") and not _is_throttling(code, status) and status < 500:  # noqa: PLR2004 - HTTP's server errors
        return "target.kms_key_id"
    if not code:
        return {301: "target.region", 401: CREDENTIALS, 403: CREDENTIALS, 501: "target.endpoint_url"}.get(status)
    return None


def _is_throttling(code: str, status: int) -> bool:
    return _THROTTLED.search(code) is not None and status not in (401, 403)
