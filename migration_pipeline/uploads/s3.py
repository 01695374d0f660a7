"""S3, or a store that speaks its protocol: what is signed is what may be uploaded, and nothing else."""

import base64
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from migration_pipeline.uploads import clocks
from migration_pipeline.uploads.errors import Misconfigured, StoreTrouble
from migration_pipeline.uploads.issuer import Place, StoreUploads, joined, under
from migration_pipeline.uploads.keys import KeyRules
from migration_pipeline.uploads.rules import UploadRules, Wish
from migration_pipeline.uploads.tickets import FormTicket, PutTicket, Stored

T = TypeVar("T")

_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 5, 5, 3
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Bucket:
    """Where uploads go.

    Attributes:
        region: the bucket's. URLs name its endpoint: another one would redirect, and browsers do not follow.
        public_base_url: what references start with, as in the migration's `target.public_base_url`.
        endpoint_url: for stores that speak S3's protocol elsewhere; `None` for AWS.
    """

    name: str
    region: str
    public_base_url: str
    endpoint_url: str | None = None


class S3Uploads(StoreUploads):
    """Uploads to one bucket; fulfils `Uploads`. May be shared by threads."""

    store = "s3"
    digest: Literal["sha256", "md5"] = "sha256"

    def __init__(
        self,
        bucket: S3Bucket,
        rules: UploadRules,
        *,
        keys: KeyRules | None = None,
        migrated_prefixes: Sequence[str] | None = None,
        session: Any = None,  # noqa: ANN401 - boto3 is imported late
        clock: clocks.Clock = clocks.now,
    ) -> None:
        """Set up; nothing is asked of S3 yet.

        Args:
            bucket: where uploads go.
            rules: what is allowed.
            keys: how keys are made.
            migrated_prefixes: what keys of migrated files begin with, where that is not `{container}/{blob}`.
            session: a boto3 session; by default one with AWS's usual chain of credentials.
            clock: this machine's.
        """
        super().__init__(bucket.name, rules, keys or KeyRules())
        self._keys.check_apart(migrated_prefixes)
        self._bucket, self._session, self._clock = bucket, session, clock
        self._opening = threading.Lock()
        self._opened: Any = None

    def reference(self, key: str) -> str:
        return joined(self._bucket.public_base_url, key)

    def check_clock(self) -> None:
        url = self._client().meta.endpoint_url
        clocks.check_clock(url, self._rules.expires_in, self._clock)

    def _put(self, key: str, wish: Wish) -> PutTicket:
        headers = {"Content-Type": wish.content_type, "If-None-Match": "*", **self._common(wish)}
        parameters = {"ContentType": wish.content_type, "ContentLength": wish.size, "IfNoneMatch": "*"}
        parameters |= {_PARAMETERS[name]: value for name, value in headers.items() if name in _PARAMETERS}
        url, expires_at = self._signed(
            lambda client, seconds: client.generate_presigned_url(
                "put_object", {"Bucket": self._room, "Key": key, **parameters}, ExpiresIn=seconds
            ),
            self._rules.expires_in,
        )
        return PutTicket(
            store=self.store,
            key=key,
            reference=self.reference(key),
            url=url,
            headers=headers,
            size=wish.size,
            expires_at=expires_at,
        )

    def _form(self, key: str, wish: Wish) -> FormTicket:
        fields = {"Content-Type": wish.content_type, "success_action_status": "201", **self._common(wish)}
        if wish.sha256 is not None:
            fields["x-amz-checksum-algorithm"] = "SHA256"
        conditions: list[Any] = [{name: value} for name, value in fields.items()]
        conditions.append(["content-length-range", self._rules.min_bytes, self._rules.max_bytes])
        form, expires_at = self._signed(
            lambda client, seconds: client.generate_presigned_post(
                self._room, key, Fields=fields, Conditions=conditions, ExpiresIn=seconds
            ),
            self._rules.expires_in,
        )
        return FormTicket(
            store=self.store,
            key=key,
            reference=self.reference(key),
            url=form["url"],
            fields=form["fields"],
            max_bytes=self._rules.max_bytes,
            expires_at=expires_at,
        )

    def _common(self, wish: Wish) -> dict[str, str]:
        """Headers of a PUT, and fields of a form, by the same names."""
        named = {"Cache-Control": self._rules.cache_control}
        if wish.sha256 is not None:
            named["x-amz-checksum-sha256"] = base64.b64encode(wish.sha256).decode()
        if self._rules.encryption is not None:
            named["x-amz-server-side-encryption"] = self._rules.encryption.algorithm
            named["x-amz-server-side-encryption-aws-kms-key-id"] = self._rules.encryption.kms_key_id
        return {name: value for name, value in named.items() if value is not None}

    def _download(self, place: Place, expires_in: timedelta) -> str:
        where = {"Bucket": place.room, "Key": place.key}
        url: str = self._signed(
            lambda client, seconds: client.generate_presigned_url("get_object", where, ExpiresIn=seconds), expires_in
        )[0]
        return url

    def _stored(self, key: str) -> Stored | None:
        head = self._asked(lambda client: client.head_object(Bucket=self._room, Key=key))
        if head is None:
            return None
        return Stored(head["ContentLength"], head.get("ContentType", ""), head["ETag"].strip('"'))

    def _remove(self, key: str) -> None:
        self._asked(lambda client: client.delete_object(Bucket=self._room, Key=key))

    def _place(self, reference: str) -> Place | None:
        key = under(self._bucket.public_base_url, reference)
        return None if key is None else Place(self._room, key)

    def _signed(self, sign: Callable[[Any, int], T], period: timedelta) -> tuple[T, datetime]:
        """What `sign` makes, and when it ends: with temporary credentials at their end, whatever the URL says."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - apps without S3 need no boto3

        begins = self._clock()
        client = self._client()
        try:
            made = sign(client, int(period.total_seconds()))
        except BotoCoreError as error:
            raise Misconfigured(f"nothing can be signed for S3: {type(error).__name__}") from None
        # Not public, and the only place that tells; keys of a user have none.
        ends: datetime | None = getattr(self._credentials, "_expiry_time", None)
        return made, min(begins + period, ends) if ends is not None else begins + period

    def _asked(self, ask: Callable[[Any], T]) -> T | None:
        """S3's answer; `None` where there is no such object."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

        try:
            return ask(self._client())
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == _NOT_FOUND:
                return None
            # Without s3:ListBucket S3 says 403 of objects that are not there: nobody can tell, so nobody guesses.
            raise StoreTrouble(f"S3 answered {status} {error.response.get('Error', {}).get('Code', '')}") from None
        except BotoCoreError as error:
            raise StoreTrouble(f"S3 did not answer: {type(error).__name__}") from None

    def _client(self) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
        with self._opening:  # making a client is not safe for threads, using one is
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> Any:  # noqa: ANN401 - as above
        import boto3  # noqa: PLC0415 - as above
        from botocore.config import Config  # noqa: PLC0415 - as above

        session = self._session or boto3.Session()
        self._credentials = session.get_credentials()
        if self._credentials is None:
            raise Misconfigured("no AWS credentials are found: set AWS_ACCESS_KEY_ID and so on, a profile or a role")
        # A bucket with a dot in its name has no certificate of its own.
        by_path = self._bucket.endpoint_url is not None or "." in self._room
        return session.client(
            "s3",
            region_name=self._bucket.region,
            endpoint_url=self._bucket.endpoint_url,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if by_path else "virtual", "us_east_1_regional_endpoint": "regional"},
                ignore_configured_endpoint_urls=True,  # AWS_ENDPOINT_URL must not lead uploads elsewhere
                request_checksum_calculation="when_required",  # the client's checksum is the one that counts
                retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
            ),
        )


_PARAMETERS = {
    "Cache-Control": "CacheControl",
    "x-amz-checksum-sha256": "ChecksumSHA256",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
}
"""Header → boto3's name for it."""
