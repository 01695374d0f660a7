"""Uploads as the app's clients make them, tried on the target with small images that are removed again."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from migration_pipeline.adapters.s3.browser import Answer, Browser
from migration_pipeline.adapters.s3.errors import CREDENTIALS
from migration_pipeline.adapters.s3.write_path import S3WritePath, Told
from migration_pipeline.commands.doctor.findings import Finding, WritePath, failure, ok, warning
from migration_pipeline.commands.doctor.remedies import aws, merged_cors
from migration_pipeline.core.errors import Fatal, MigrationError, SettingsError, Transient
from migration_pipeline.settings import Settings
from migration_pipeline.uploads import (
    Encryption,
    FormTicket,
    KeyRules,
    Misconfigured,
    PutTicket,
    S3Bucket,
    S3Uploads,
    UploadRules,
    UploadsError,
    Wish,
    explain,
)

PROFILE = "migration-pipeline-probe"
"""Whose uploads the probes are."""
IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""One grey pixel: what stands between the bucket and its readers may look into images."""
MD5 = hashlib.md5(IMAGE, usedforsecurity=False).digest()
TYPE, CACHE = "image/png", "public, max-age=60"
LEFT_BEHIND = timedelta(hours=1)
"""Older probes belong to an examination that was killed: none takes so long."""
_WISH = Wish(content_type=TYPE, size=len(IMAGE), sha256=hashlib.sha256(IMAGE).digest())


class Tried(NamedTuple):
    """What came of it.

    Attributes:
        refused: origins from which a browser may not upload.
        read: how reading an upload ended, as clients will read it; `None` where none was taken.
    """

    refused: Sequence[str]
    read: Answer | None

    @property
    def readable(self) -> bool:
        """Whether what was read is what was uploaded."""
        return self.read is not None and self.read.good and self.read.body == IMAGE


class Attempts:
    """Uploads of probe objects, each of which is known before it is made."""

    def __init__(self, settings: Settings, store: S3WritePath, browser: Browser) -> None:
        """Set up.

        Raises:
            Fatal: nothing can be signed, or no names can be made.
        """
        self._settings, self._store, self._browser = settings, store, browser
        self._keys: list[str] = []
        self._taken: list[str] = []
        self._uploads, self.prefix = _issuer(settings, store), name_prefix(settings)

    async def try_all(self, origins: Sequence[str], cors: Told, found: list[Finding]) -> Tried:
        """Upload from each origin, or from none, and read one upload; what is found is told as it is found."""
        await self._remove_leftovers()
        puts, forms = _Ends(), _Ends()
        lacking: dict[str, str] = {}
        for origin in origins or [""]:
            put, form = self._put_ticket(), self._form_ticket()
            lacks = await self._preflight(put, origin) if origin else ""
            answers = await self._put(put, origin), await self._post(form, origin)
            for reference, key, answer, ends in (
                (put.reference, put.key, answers[0], puts),
                (form.reference, form.key, answers[1], forms),
            ):
                ends.add(reference, await self._stored_wrong(reference, key) if answer.good else _refused(answer))
            if origin and not lacks and not all(answer.readable_from(origin) for answer in answers):
                lacks = "the answers to uploads are hidden from its pages"
            if lacks:
                lacking[origin] = lacks
            elif origin:
                found.append(ok(WritePath.CORS, f"pages of {origin} may upload"))
        found += self._cors(origins, lacking, cors)
        found += [await self._foreign(origin) for origin in origins]
        found += [puts.told(WritePath.PUT), forms.told(WritePath.FORM), await self._without_url()]
        self._taken = [*puts.taken, *forms.taken]
        return Tried(list(lacking), await self._read(*self._taken[:1]))

    async def remove(self) -> Finding:
        """Remove all that was made, whatever came of it."""
        left = []
        for key in self._keys:
            try:
                await self._discard(key)
            except MigrationError as error:
                left.append(f"{key} ({error})")
        if left:
            return failure(
                WritePath.PROBES,
                f"not removed: {'; '.join(left)}.",
                "Grant s3:GetObject and s3:DeleteObject, on a bucket with versioning s3:DeleteObjectVersion too; "
                "remove these objects.",
            )
        return ok(WritePath.PROBES, f"{len(self._keys)} under {self.prefix}{PROFILE}/ came and went, as far as taken")

    async def read_without_signature(self) -> Answer | None:
        """An upload, as anybody would read it who knows its name."""
        return await self._browser.get(self._taken[0]) if self._taken else None

    async def _discard(self, key: str) -> None:
        for pause in (0.2, 1.0):
            try:
                return await self._store.discard(key)
            except Transient:
                await asyncio.sleep(pause)
        return await self._store.discard(key)

    async def _remove_leftovers(self) -> None:
        """Probes of an examination that was killed; by their bytes, for a profile might have our name."""
        for key in await self._store.old_keys(f"{self.prefix}{PROFILE}/", len(IMAGE), LEFT_BEHIND):
            await self._store.discard(key, MD5)

    def _put_ticket(self) -> PutTicket:
        try:
            ticket = self._uploads.put_ticket(PROFILE, _WISH)
        except UploadsError as error:
            raise _unsigned(error) from None
        self._keys.append(ticket.key)
        return ticket

    def _form_ticket(self) -> FormTicket:
        try:
            ticket = self._uploads.form_ticket(PROFILE, _WISH)
        except UploadsError as error:
            raise _unsigned(error) from None
        if ticket is None:
            raise Fatal("no form is issued for this store.", setting="target.endpoint_url")
        self._keys.append(ticket.key)
        return ticket

    async def _preflight(self, ticket: PutTicket, origin: str) -> str:
        """What keeps a page from sending the PUT; a form goes without being asked for."""
        answer = await self._browser.preflight(ticket.url, origin, "PUT", list(ticket.headers))
        lacking = answer.allows(origin, "PUT", list(ticket.headers))
        return f"asked whether a page may PUT, {lacking}" if lacking else ""

    async def _put(self, ticket: PutTicket, origin: str) -> Answer:
        return await self._browser.send("PUT", ticket.url, {**ticket.headers, **_from(origin)}, IMAGE)

    async def _post(self, ticket: FormTicket, origin: str) -> Answer:
        return await self._browser.post_form(ticket.url, ticket.fields, IMAGE, TYPE, _from(origin))

    async def _foreign(self, origin: str) -> Finding:
        """Whether a site with another name that begins alike may upload as well."""
        parts = urlsplit(origin)
        other = f"{parts.scheme}://{parts.hostname}.invalid" + (f":{parts.port}" if parts.port else "")
        ticket = self._put_ticket()
        answer = await self._browser.preflight(ticket.url, other, "PUT", list(ticket.headers))
        if answer.status is None:
            return warning(WritePath.FOREIGN, f"cannot be told: {answer.said}.", "Look again.")
        if answer.allows(other, "PUT", list(ticket.headers)):
            return ok(WritePath.FOREIGN, f"pages of {other} may not")
        return warning(
            WritePath.FOREIGN,
            f"pages of {other}, which nobody named, may use upload URLs, too.",
            "Replace * in the AllowedOrigins of the bucket's CORS rules by the app's own origins.",
        )

    async def _without_url(self) -> Finding:
        """Whether anybody may write without an upload URL."""
        ticket = self._put_ticket()
        answer = await self._browser.send("PUT", ticket.url.partition("?")[0], {"Content-Type": TYPE}, IMAGE)
        if answer.good:
            remedy = "Take the statement that lets Principal * write out of the bucket's policy, and turn its ACLs off."
            return failure(WritePath.UNSIGNED, "anybody may write to the bucket.", remedy)
        if answer.status is None:
            return warning(WritePath.UNSIGNED, f"cannot be told: {answer.said}.", "Look again.")
        return ok(WritePath.UNSIGNED, f"nobody may: {answer.said}")

    async def _read(self, reference: str | None = None) -> Answer | None:
        """An upload, as clients will read it."""
        if reference is None:
            return None
        signed = self._settings.uploads.reads == "signed"
        return await self._browser.get(self._uploads.download_url(reference) if signed else reference)

    def _cors(self, origins: Sequence[str], lacking: Mapping[str, str], cors: Told) -> Iterator[Finding]:
        target = self._settings.target
        if not origins:
            remedy = "Name uploads.origins, or give --origin; apps that only run on phones need none."
            yield warning(WritePath.CORS, "no origin is named: nothing was tried as a browser.", remedy)
        if not lacking:
            return
        rules = merged_cors(cors.answer or {}, list(lacking))
        remedy = (
            f"doctor --write-path --fix adds a rule; or: {aws(target, 'put-bucket-cors', cors_configuration=rules)}"
        )
        if cors.answer is None:
            remedy = f"Add to the bucket's CORS rules: {json.dumps(rules['CORSRules'][0])}"
        for origin, lacks in lacking.items():
            yield failure(WritePath.CORS, f"{origin}: {lacks}.", remedy)

    async def _stored_wrong(self, reference: str, key: str) -> str:
        """What is wrong with an upload that was taken; nothing where it is as it was signed for."""
        wanted = self._settings.target.encryption
        try:
            await asyncio.to_thread(self._uploads.confirm, PROFILE, reference)
            there = await self._store.describe(key, read=True)
            stored = await self._store.stored(key)
        except (UploadsError, MigrationError) as error:
            return f"an upload is taken, but cannot be confirmed: {error}"
        if there is None or there.md5 != MD5:
            return "an upload is taken, and holds other bytes"
        if wanted is not None and stored.encryption != wanted:
            return f"an upload is taken, with encryption {stored.encryption or 'not said'} and not {wanted}"
        return ""


class _Ends:
    """How the uploads of one kind ended."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self._problems: list[str] = []

    def add(self, reference: str, problem: str) -> None:
        """One upload: its reference, and what is wrong with it."""
        if problem:
            self._problems.append(problem)
        else:
            self.taken.append(reference)

    def told(self, what: WritePath) -> Finding:
        """All of them."""
        if self._problems:
            remedy = "Grant s3:PutObject on these keys, and let no Deny in the bucket's policy meet them; see [target]."
            return failure(what, f"{self._problems[0]}.", remedy)
        return ok(what, "an upload is taken, and holds the bytes that were sent")


def _refused(answer: Answer) -> str:
    said = explain(answer.body.decode(errors="replace")) if answer.body else ""
    return f"{answer.said}. {said}".strip().rstrip(".")


def name_prefix(settings: Settings) -> str:
    """What keys of uploads begin with, up to the profile."""
    return settings.uploads.key_template.partition("{profile}")[0]


def migrated_prefixes(settings: Settings) -> list[str]:
    """What keys of migrated files begin with."""
    begin = (settings.target.prefix + settings.target.key_template).partition("{blob}")[0]
    return [begin.replace("{container}", container) for container in settings.source.containers]


def names(settings: Settings) -> Finding:
    """Whether names of uploads and of migrated files stay apart."""
    template = settings.uploads.key_template
    try:
        KeyRules(template).check_apart(migrated_prefixes(settings))
    except Misconfigured as error:
        return warning(WritePath.KEYS, f"{error}.", "Give uploads.key_template, and the app, a folder of their own.")
    return ok(WritePath.KEYS, f"uploads are {template}, apart from migrated files")


def _issuer(settings: Settings, store: S3WritePath) -> S3Uploads:
    target = settings.target
    bucket = S3Bucket(
        name=target.bucket,
        region=target.region,
        public_base_url=target.public_base_url,
        endpoint_url=target.endpoint_url,
    )
    rules = UploadRules(
        max_bytes=len(IMAGE),
        types={TYPE: ".png"},
        cache_control=CACHE,
        encryption=Encryption(target.encryption, target.kms_key_id) if target.encryption else None,
    )
    try:
        keys = KeyRules(settings.uploads.key_template)
        return S3Uploads(bucket, rules, keys=keys, migrated_prefixes=[], session=store.session)
    except Misconfigured as error:
        raise SettingsError(
            f"{error}.", setting="uploads.key_template", remedy="As KeyRules of the app has it."
        ) from None


def _unsigned(error: UploadsError) -> Fatal:
    return Fatal(f"{error}.", setting=CREDENTIALS, remedy="Give credentials that may sign.")


def _from(origin: str) -> dict[str, str]:
    return {"Origin": origin} if origin else {}
