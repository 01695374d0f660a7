"""What a store's refusal of an upload means, in words for the app's log or its user."""

import re

_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_BY_MESSAGE = (
    ("expired", "The URL's time is over: ask for another. If it was fresh, the signer's clock is slow."),
    ("not yet valid", "The signer's clock is ahead of S3's by more than 15 minutes: set it by NTP."),
    ("Policy Condition failed", "A field of the form differs from the policy: send the fields exactly as issued."),
    ("Extra input fields", "The form holds a field that the policy does not allow: send the fields exactly as issued."),
)
_BY_CODE = {
    "RequestTimeTooSkewed": "The signer's clock and S3's differ by more than 15 minutes: set it by NTP.",
    "SignatureDoesNotMatch": "What was sent is not what was signed: another type, size, header or key than issued.",
    "EntityTooLarge": "The file is larger than allowed.",
    "EntityTooSmall": "The file is smaller than allowed.",
    "PreconditionFailed": "There is a file under this name already: each URL is good for one upload.",
    "BadDigest": "The file's bytes are not those whose digest was said beforehand.",
    "XAmzContentChecksumMismatch": "The file's bytes are not those whose digest was said beforehand.",
    "ExpiredToken": "The signer's temporary credentials ended before the URL did.",
    "InvalidToken": "The signer's temporary credentials are not known.",
    "InvalidAccessKeyId": "The signer's access key is not known.",
    "PermanentRedirect": "The bucket is in another region than the URL was signed for.",
    "TemporaryRedirect": "The bucket is new, and its region's endpoint must be used.",
    "AuthorizationHeaderMalformed": "The bucket is in another region than the URL was signed for.",
    "AccessForbidden": "The bucket's CORS rules do not allow this origin, method or header.",
    "AccessDenied": "The signer's role may not write there.",
    "SlowDown": "The store asks for fewer requests: try again a little later.",
    "AuthenticationFailed": "The SAS is wrong, or its time is over: ask for another.",
    "AuthorizationFailure": "The SAS is wrong, or its time is over: ask for another.",
    "AuthorizationPermissionMismatch": "A SAS to create does not replace or read: there is a blob already.",
    "AuthorizationProtocolMismatch": "The SAS is good over https only.",
    "UnauthorizedBlobOverwrite": "There is a blob under this name already: each URL is good for one upload.",
    "BlobAlreadyExists": "There is a blob under this name already: each URL is good for one upload.",
    "Md5Mismatch": "The file's bytes are not those whose digest was sent.",
    "CorsPreflightFailure": "The account's CORS rules do not allow this origin, method or header.",
}
"""Amazon S3 API Reference, "Error responses"; Azure's "Blob Storage error codes"."""


def explain(body: str) -> str:
    """What an error document of S3 or Azure means; nothing of its text is repeated but the code."""
    code = _CODE.search(body)
    if code is None:
        return "The store gave no reason."
    message = _MESSAGE.search(body)
    if message is not None:
        for part, meaning in _BY_MESSAGE:
            if part.lower() in message[1].lower():
                return meaning
    return _BY_CODE.get(code[1], f"The store said {code[1]}.")
