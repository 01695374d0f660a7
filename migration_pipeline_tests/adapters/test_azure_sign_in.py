"""Signed in as an identity of Entra, on Azurite, which looks at a token's audience, issuer and end."""

import asyncio
import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, ContentSettings, generate_container_sas

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.listing import AzureListing
from migration_pipeline.adapters.azure.removal import AzureBlobRemoval
from migration_pipeline.adapters.azure.sign_in import AzureCredentials, account_name, container_sas, sign_in
from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.http.wire import Wire
from migration_pipeline.core.copy_file import Copier, CopyLimits
from migration_pipeline.core.errors import Fatal, SettingsError
from migration_pipeline.core.model import CopyResult, Outcome, SourceFile, WantedFile
from migration_pipeline.core.removal_ports import How
from migration_pipeline.core.transfer import transfer
from migration_pipeline.core.urls import KeyTemplate, UrlRules
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.azurite import ACCOUNT, KEY, AzuriteServer
from migration_pipeline.uploads import AzureContainer, AzureUploads, UploadRules, Wish
from migration_pipeline_tests.certificates import Certificates, made_in
from migration_pipeline_tests.memory_stores import MemoryTarget
from migration_pipeline_tests.recording import Asked, Recorder, recording

FILES, TOKEN_SECONDS, A_SECOND = (int(n) for n in os.environ.get("ENTRA", "150,2,60").split(","))
"""Files, seconds that a token lasts, and requests a second; as a campaign: ENTRA=2000,20,60."""
CONTAINER = "photos"
TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
_TOKEN = f"/{TENANT}/oauth2/v2.0/token"
Said = tuple[int, dict[str, str], bytes]


class Entra:
    """Stands in for the places that give tokens: App Service's, the machine's metadata, and Entra itself."""

    def __init__(self, lasts: float) -> None:
        self.lasts, self.given = lasts, 0
        self.refuses: tuple[int, dict[str, object]] | None = None
        self.asked: list[Asked] = []

    def answer(self, asked: Asked) -> Said | None:
        path, _, query = asked.path.partition("?")
        if path.endswith("openid-configuration"):
            base = f"https://{asked.headers['host']}/{TENANT}"
            return _json(
                200, {"token_endpoint": f"{base}/token", "authorization_endpoint": f"{base}/a", "issuer": base}
            )
        if path not in {"/identity", "/metadata/identity/oauth2/token", _TOKEN}:
            return _json(404, {"error": "not here"})
        self.asked.append(asked)
        if self.refuses is not None:
            return _json(*self.refuses)
        if path == _TOKEN:
            assert parse_qs(asked.body.decode())["client_assertion"] == ["assertion"]
        else:
            assert parse_qs(query)["resource"] == ["https://storage.azure.com"]
            assert "x-identity-header" in asked.headers or asked.headers["metadata"] == "true"
        self.given += 1
        end = int(time.time() + self.lasts)
        said = {"token_type": "Bearer", "access_token": self._token(end), "expires_on": str(end)}
        return _json(200, {**said, "expires_in": int(self.lasts), "resource": "https://storage.azure.com"})

    def _token(self, end: int) -> str:
        claims = {
            "aud": "https://storage.azure.com",
            "iss": f"https://sts.windows.net/{TENANT}/",
            "exp": end,
            "oid": CLIENT,
            "tid": TENANT,
        }
        parts = [{"alg": "none", "typ": "JWT"}, {**claims, "nbf": end - 9999, "iat": end - 9999, "n": self.given}]
        return ".".join(
            [*(base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts), "s"]
        )


def _json(status: int, body: dict[str, object]) -> Said:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return made_in(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="module")
def azurite(sandbox: Sandbox, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an account that takes tokens: over TLS alone. The sandbox has installed Azurite."""
    assert sandbox
    server = AzuriteServer(
        tmp_path_factory.mktemp("azurite") / "data",
        "--oauth", "basic", "--cert", str(certificates.server), "--key", str(certificates.server),
    )  # fmt: skip
    yield server.account_url.replace("http:", "https:")
    server.close()


@pytest.fixture(scope="module")
def files(azurite: str, certificates: Certificates) -> dict[str, bytes]:
    bodies = {f"{n}.jpg": f"body {n}".encode() for n in range(FILES)}
    with BlobServiceClient(azurite, credential=KEY, connection_verify=str(certificates.authority)) as azure:
        container = azure.create_container(CONTAINER)
        for name, body in bodies.items():
            digest = bytearray(hashlib.md5(body, usedforsecurity=False).digest())
            container.upload_blob(name, body, content_settings=ContentSettings("image/jpeg", content_md5=digest))
    return bodies


@pytest.fixture
def entra(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[str], Entra]]:
    for name in [name for name in os.environ if name.startswith(("AZURE_", "IDENTITY_", "MSI_"))]:
        monkeypatch.delenv(name)
    with ExitStack() as stack:

        def start(kind: str, lasts: float = 3600) -> Entra:
            given = Entra(lasts)
            tls = kind == "workload identity"
            recorder = stack.enter_context(
                recording(Recorder(first=given.answer, tls=certificates.context if tls else None))
            )
            if kind == "App Service":
                monkeypatch.setenv("IDENTITY_ENDPOINT", f"{recorder.url}/identity")
                monkeypatch.setenv("IDENTITY_HEADER", "h")
            elif kind == "machine":
                monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", recorder.url)
            elif kind == "workload identity":
                (tmp_path / "assertion").write_text("assertion")
                monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://127.0.0.1:{recorder.port}")
                monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
                monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
                monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "assertion"))
            return given

        yield start


KINDS = ["App Service", "machine", "workload identity"]
SIGNED_IN = AzureCredentials(entra=True)


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_fails_though_tokens_end_all_the_time(
    azurite: str, certificates: Certificates, files: dict[str, bytes], entra: Callable[..., Entra], kind: str
) -> None:
    given = entra(kind, TOKEN_SECONDS)
    network = Network.of_environment(certificates.authority)
    rules = UrlRules(
        account_url=azurite,
        containers=[CONTAINER],
        alias_hosts={},
        public_base_url="https://cdn.example.com",
        keys=KeyTemplate("", "{blob}"),
    )
    recorded: list[CopyResult] = []
    target = MemoryTarget()

    async def work() -> None:
        async with AzureBlobSource(azurite, [CONTAINER], SIGNED_IN, network=network) as source:
            await source.check()
            copier = Copier(source, target, rules, CopyLimits(in_flight=16, requests_per_second=A_SECOND))
            await transfer([WantedFile(SourceFile(CONTAINER, name)) for name in files], copier, recorded.extend)

    began = time.monotonic()
    asyncio.run(work())
    assert [result.message for result in recorded if result.outcome is not Outcome.COPIED] == []
    assert {result.attempts for result in recorded} == {1}
    assert target.objects == files
    # Each was renewed before its end, and by one request for all of the files in flight.
    lasted = (time.monotonic() - began) / TOKEN_SECONDS
    assert lasted - 2 < given.given < 4 * lasted + 4


def test_listing_and_removing_take_the_same_identity(
    azurite: str, certificates: Certificates, files: dict[str, bytes], entra: Callable[..., Entra]
) -> None:
    given = entra("App Service")
    network = Network.of_environment(certificates.authority)
    listing = AzureListing(azurite, SIGNED_IN, network=network)
    assert {blob.file.blob for page in listing.pages(CONTAINER) for blob in page.blobs} >= set(files)
    with BlobServiceClient(azurite, credential=KEY, connection_verify=str(certificates.authority)) as azure:
        azure.create_container("bin").upload_blob("a", b"x")

        async def remove() -> None:
            async with AzureBlobRemoval(azurite, ["bin"], SIGNED_IN, How.DELETE, network=network) as source:
                there = await source.look(SourceFile("bin", "a"))
                assert there is not None
                await source.remove(SourceFile("bin", "a"), there.etag)
                assert await source.look(SourceFile("bin", "a")) is None

        asyncio.run(remove())
    assert given.given >= 2


def test_the_app_issues_uploads_signed_by_an_identity(
    azurite: str, certificates: Certificates, files: dict[str, bytes], entra: Callable[..., Entra]
) -> None:
    assert files
    given = entra("App Service")
    container = AzureContainer(account_url=azurite, name=CONTAINER, credential=DefaultAzureCredential())
    network = Network.of_environment(certificates.authority)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(certificates.authority))
        uploads = AzureUploads(container, UploadRules(max_bytes=99))
        ticket = uploads.put_ticket("7", Wish(content_type="image/jpeg", size=5))
        assert "skoid=" in ticket.url
        # One key for many URLs, and another where it would end before a URL does.
        before = uploads._delegated  # noqa: SLF001 - what is kept
        uploads.put_ticket("7", Wish(content_type="image/jpeg", size=5))
        assert uploads._delegated is before  # noqa: SLF001 - as above

        async def send() -> int:
            async with Wire(azurite, network, timeout=5) as wire:
                return (await wire.send("PUT", ticket.url, ticket.headers, b"bytes")).status

        assert asyncio.run(send()) == 201
        confirmed = uploads.confirm("7", ticket.reference)
    assert confirmed.size == 5
    assert given.given == 1


def test_a_token_that_was_revoked_is_renewed_once_for_all(
    azurite: str, certificates: Certificates, files: dict[str, bytes], entra: Callable[..., Entra]
) -> None:
    given = entra("App Service")
    network = Network.of_environment(certificates.authority)

    async def admit(_: int) -> None:
        return

    async def story() -> None:
        async with AzureBlobSource(azurite, [CONTAINER], SIGNED_IN, network=network) as source:
            await source.check()
            source.sign_in._token = "revoked"  # type: ignore[attr-defined] # noqa: SLF001 - as if it were
            names = list(files)[:20]
            await asyncio.gather(
                *(source.read(SourceFile(CONTAINER, name), whole_up_to=99, admit=admit) for name in names)
            )

    asyncio.run(story())
    assert given.given == 1  # azure-identity still had a good one


NO_CODE: dict[str, object] = {"error": "unauthorized_client", "error_description": "no"}
REFUSALS: dict[str, tuple[str, tuple[int, dict[str, object]] | None, str]] = {
    "nothing is set up": ("none", None, "no identity"),
    "the machine has none": (
        "machine",
        (400, {"error": "invalid_request", "error_description": "none"}),
        "no identity",
    ),
    **{
        said: (
            "workload identity",
            (401, {"error": "invalid_client", "error_description": f"{code}: Trace ID: 1"}),
            said,
        )
        for code, said in {
            "AADSTS7000215": "the client's secret is not right",
            "AADSTS7000222": "the client's secret has ended",
            "AADSTS700016": "the tenant does not know the client",
            "AADSTS700024": "the assertion has ended",
            "AADSTS70021": "no federated credential of the client fits the assertion",
            "AADSTS90002": "there is no such tenant",
            "AADSTS53003": "a policy of conditional access forbids it",
            "AADSTS999": "Entra refuses it",
        }.items()
    },
}


@pytest.mark.parametrize("named", REFUSALS)
def test_entra_refuses(
    azurite: str, certificates: Certificates, entra: Callable[..., Entra], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, refusal, said = REFUSALS[named]
    monkeypatch.setenv("PATH", "/nowhere")  # where `az` is not
    entra(kind).refuses = refusal
    network = Network.of_environment(certificates.authority)

    async def work() -> None:
        async with AzureBlobSource(azurite, [CONTAINER], SIGNED_IN, network=network) as source:
            await source.check()

    with pytest.raises(Fatal) as fatal:
        asyncio.run(work())
    assert fatal.value.setting == "source.auth"
    assert said in fatal.value.message
    assert fatal.value.remedy
    assert CLIENT not in str(fatal.value)
    with pytest.raises(Fatal) as listing:
        list(AzureListing(azurite, SIGNED_IN, network=network).pages(CONTAINER))
    assert (listing.value.setting, listing.value.message) == ("source.auth", fatal.value.message)


def token(**parts: object) -> str:
    return "&".join(f"{name}={value}" for name, value in {"sv": "2021-08-06", "sig": "s", **parts}.items())


SAS_REFUSED = {
    "has none for verifications": json.dumps({"photos": token()}),
    "is of one container": token(sr="c"),
    "has no signature": "sv=2021-08-06&se=2030-01-01",
    "is not JSON": "{photos: x}",
}


@pytest.mark.parametrize("said", SAS_REFUSED)
def test_a_sas_that_cannot_be_is_refused_at_once(said: str) -> None:
    with pytest.raises(SettingsError, match="AZURE_STORAGE_SAS_TOKEN") as refused:
        signed_in(AzureCredentials(sas_token=SAS_REFUSED[said]))
    assert said in refused.value.message
    assert "sig=s" not in str(refused.value)


def signed_in(credentials: AzureCredentials, url: str = "https://acct.blob.core.windows.net") -> object:
    return sign_in(url, ["photos", "verifications"], credentials, Network(None, {}), timedelta(hours=6), "rl")


def test_each_container_goes_with_its_own_sas_and_the_first_to_end_counts() -> None:
    each = {"photos": f"?{token(sr='c', se='2030-01-01T00:00:00Z')}", "verifications": token(sr="c", se="2029-05-06")}
    found = sign_in(
        "https://files.example.com", list(each), AzureCredentials(sas_token=json.dumps(each)), Network(None, {}),
        timedelta(hours=6), "rl",
    )  # fmt: skip
    assert found.ends_at == datetime(2029, 5, 6, tzinfo=UTC)
    assert asyncio.run(found.signed("photos")).query == each["photos"].removeprefix("?")
    assert asyncio.run(found.signed("verifications")).query == each["verifications"]
    assert "sig" not in repr(asyncio.run(found.signed("photos")))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://acct.blob.core.windows.net", "acct"),
        ("https://acct-secondary.blob.core.windows.net", "acct"),
        ("https://acct.z12.blob.storage.azure.net", "acct"),
        ("https://acct.blob.core.chinacloudapi.cn", "acct"),
        ("http://127.0.0.1:10000/devstoreaccount1", "devstoreaccount1"),
        ("http://10.0.0.4:10000/acct-secondary", "acct"),
    ],
)
def test_the_account_is_read_from_the_url(url: str, name: str) -> None:
    assert account_name(url) == name


@pytest.mark.parametrize("url", ["https://files.example.com", "https://10.0.0.4"])
def test_a_domain_of_ones_own_does_not_say_the_account(url: str) -> None:
    with pytest.raises(SettingsError, match=r"source\.account_name"):
        account_name(url)
    assert account_name(url, "acct") == "acct"


def test_a_sas_made_here_begins_before_now_and_ends(azurite: str) -> None:
    made = parse_qs(asyncio.run(sign_in(
        azurite, ["photos"], AzureCredentials(KEY), Network(None, {}), timedelta(hours=6), "rl"
    ).signed("photos")).query)  # fmt: skip
    begins, ends = (datetime.fromisoformat(made[name][0]) for name in ("st", "se"))
    assert timedelta(minutes=10) < datetime.now(UTC) - begins < timedelta(minutes=20)
    assert timedelta(hours=5) < ends - datetime.now(UTC) <= timedelta(hours=6)


@pytest.mark.parametrize("rights", ["rl", "rd", "rw"])
def test_a_sas_made_here_is_that_of_azures_own_client(rights: str) -> None:
    begin, end = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC)
    theirs = generate_container_sas(
        ACCOUNT, "a-b", account_key=KEY, permission=ContainerSasPermissions.from_string(rights), start=begin, expiry=end
    )
    version = parse_qs(theirs)["sv"][0]
    assert parse_qs(container_sas(ACCOUNT, "a-b", KEY, rights, begin, end, version)) == parse_qs(theirs)


def test_a_sas_that_has_ended_names_its_own_variable(sandbox: Sandbox) -> None:
    url = sandbox.azure_account_url
    ended = generate_container_sas(
        ACCOUNT, CONTAINER, account_key=KEY, permission=ContainerSasPermissions(read=True, list=True),
        expiry=datetime.now(UTC) - timedelta(hours=1),
    )  # fmt: skip

    async def work() -> None:
        async with AzureBlobSource(url, [CONTAINER], AzureCredentials(sas_token=ended)) as source:
            await source.check()

    with pytest.raises(Fatal, match="AZURE_STORAGE_SAS_TOKEN"):
        asyncio.run(work())
