"""A real browser uploads photos from the example app's page to the store, and shows them from their new URLs.

"Refused" means refused by the store: its status, its error code, and that no object is there afterwards.
"""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import psycopg
import pytest
from azure.storage.blob import BlobServiceClient, CorsRule
from PIL import Image
from playwright.sync_api import Page
from werkzeug.serving import make_server

from examples.photo_app.app import create_app
from examples.photo_app.photos import Photos
from migration_pipeline.core.urls import KeyTemplate, UrlKind, UrlRules
from migration_pipeline.sandbox import Sandbox, azurite
from migration_pipeline.uploads import (
    AzureContainer,
    AzureUploads,
    FormTicket,
    PutTicket,
    S3Bucket,
    S3Uploads,
    Switch,
    SwitchedUploads,
    UploadRules,
    Wish,
    explain,
)
from migration_pipeline.uploads.cors import azure_cors, s3_cors
from migration_pipeline_tests import browser
from migration_pipeline_tests.uploads.time_travel import signed_at

PROFILE = "7"
RULES = UploadRules(max_bytes=200_000, types={"image/jpeg": ".jpg", "image/png": ".png"})
TABLE = """
CREATE TABLE profiles (
  id bigint PRIMARY KEY, username text NOT NULL, photos jsonb, bio text,
  updated_at timestamptz NOT NULL, deleted_at timestamptz, photos_migrated_at timestamptz
);
INSERT INTO profiles (id, username, photos, updated_at) VALUES
  (7, 'ada', '[{"id": "old", "caption": "no file of ours"}]', '2024-01-01Z'), (8, 'bea', NULL, '2024-01-01Z');
"""

pytestmark = pytest.mark.skipif(not browser.available(), reason=browser.UNAVAILABLE)


@dataclass
class Place:
    """The app, served to its own origin, and the stores behind it."""

    origin: str
    foreign_origin: str
    bucket: S3Bucket
    uploads: S3Uploads
    client: Any
    database_url: str

    def photos(self, profile: str = PROFILE) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute("SELECT photos FROM profiles WHERE id = %s", (profile,)).fetchone()
        assert row is not None
        return row[0] or []

    def objects(self) -> dict[str, int]:
        found = self.client.list_objects_v2(Bucket=self.bucket.name).get("Contents", [])
        return {each["Key"]: each["Size"] for each in found}


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An origin on a port of 127.0.0.1."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def place(sandbox: Sandbox) -> Iterator[Place]:
    name = f"browser-{uuid4().hex[:12]}"
    database_url = sandbox.create_database(name.replace("-", "_"))
    with psycopg.connect(database_url) as connection:
        connection.execute(TABLE)
    bucket = S3Bucket(
        name=name,
        region="us-east-1",
        public_base_url=f"{sandbox.s3_endpoint_url}/{name}",
        endpoint_url=sandbox.s3_endpoint_url,
    )
    uploads = S3Uploads(bucket, RULES)
    app = create_app(uploads, Photos(database_url), secret="sandbox")
    with (
        closing(boto3.client("s3", endpoint_url=sandbox.s3_endpoint_url, region_name="us-east-1")) as client,
        served(app) as origin,
        served(app) as foreign_origin,
    ):
        client.create_bucket(Bucket=name)
        client.put_bucket_cors(Bucket=name, CORSConfiguration=s3_cors([origin]))
        public = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*"}
        client.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [public]}))
        yield Place(origin, foreign_origin, bucket, uploads, client, database_url)


@pytest.fixture(scope="module")
def page(place: Place) -> Iterator[Page]:
    with browser.open_browser() as chromium:
        opened = chromium.pages[0]
        sign_in(opened, place.origin)
        yield opened


def sign_in(page: Page, origin: str) -> None:
    page.goto(origin)
    page.fill("input[name=profile]", PROFILE)
    page.click("button")
    page.wait_for_selector("#upload")


def picture(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    body = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(body, kind)
    return body.getvalue()


def choose_and_upload(page: Page, file: Path | dict[str, Any], by: str) -> None:
    page.set_input_files("#file", file)  # type: ignore[arg-type] # either is what Playwright takes
    page.check(f"input[value={by}]")
    page.click("#upload button")


def refused(page: Page) -> str:
    """What the page tells its user."""
    page.wait_for_function("!['', 'Uploading …'].includes(document.getElementById('said').textContent)")
    return page.inner_text("#said")


UPLOAD = """async ([ticket, body, headers, fields]) => {
  const { put, post } = await import("/static/upload.js");
  const bytes = Uint8Array.from(atob(body), (c) => c.charCodeAt(0));
  const given = { ...ticket, headers: { ...ticket.headers, ...headers }, fields: { ...ticket.fields, ...fields } };
  try {
    const answer = await (ticket.method === "PUT" ? put(given, bytes) : post(given, new Blob([bytes])));
    return { status: answer.status, body: await answer.text() };
  } catch (error) {
    return { error: String(error) };
  }
}"""


def send_from(page: Page, ticket: PutTicket | FormTicket, body: bytes, **changed: dict[str, str]) -> dict[str, Any]:
    """Upload by the page's own functions, whatever the ticket says."""
    text = base64.b64encode(body).decode()
    answer: dict[str, Any] = page.evaluate(
        UPLOAD, [ticket.as_json(), text, changed.get("headers", {}), changed.get("fields", {})]
    )
    return answer


CONFIRM = """async (reference) => (await fetch("/photos", {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ reference }),
})).status"""


def tickets(place: Place, size: int) -> tuple[PutTicket, FormTicket]:
    wish = Wish(content_type="image/jpeg", size=size)
    form = place.uploads.form_ticket(PROFILE, wish)
    assert form is not None
    return place.uploads.put_ticket(PROFILE, wish), form


@pytest.mark.parametrize(("by", "kind", "content_type"), [("put", "JPEG", "image/jpeg"), ("form", "PNG", "image/png")])
def test_a_photo_is_uploaded_and_shown_from_its_new_url(
    page: Page, place: Place, tmp_path: Path, by: str, kind: str, content_type: str
) -> None:
    before, body = place.photos(), picture(kind)
    file = tmp_path / f"me.{kind.lower()}"
    file.write_bytes(body)
    sent_to = []
    page.on("request", lambda request: sent_to.append((request.method, request.url.partition("?")[0])))
    choose_and_upload(page, file, by)
    page.wait_for_function("count => document.querySelectorAll('.photos img').length === count", arg=len(before))

    *kept, added = place.photos()
    assert kept == before
    reference = added["original"]
    shown = page.locator(f"img[src='{reference}']")
    shown.evaluate("image => image.decode()")
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [64, 48]
    key = reference.removeprefix(place.bucket.public_base_url + "/")
    stored = place.client.get_object(Bucket=place.bucket.name, Key=key)
    assert (stored["Body"].read(), stored["ContentType"]) == (body, content_type)
    # The file went from the browser to the store, and never through the app.
    store = place.bucket.public_base_url
    assert any(method == ("PUT" if by == "put" else "POST") and url.startswith(store) for method, url in sent_to)
    # The migration takes the new reference for one that has moved already.
    rules = UrlRules(
        account_url="https://acct.blob.core.windows.net",
        containers=["photos"],
        alias_hosts={},
        public_base_url=store,
        keys=KeyTemplate(),
    )
    found = rules.classify(reference)
    assert found is not None
    assert (found.kind, rules.file_of(key)) == (UrlKind.TARGET, None)


@pytest.mark.parametrize("by", ["put", "form"])
def test_the_same_page_uploads_to_azure_before_the_switch(page: Page, place: Place, sandbox: Sandbox, by: str) -> None:
    name = f"browser-{uuid4().hex[:12]}"
    container = AzureContainer(account_url=sandbox.azure_account_url, name=name, account_key=azurite.KEY)
    azure = AzureUploads(container, RULES)
    uploads = SwitchedUploads(azure, place.uploads, Switch("before"))
    app = create_app(uploads, Photos(place.database_url), secret="sandbox")
    with BlobServiceClient(sandbox.azure_account_url, azurite.KEY) as account, served(app) as origin:
        account.create_container(name, public_access="blob")
        account.set_service_properties(cors=[CorsRule(**azure_cors([origin]))])
        try:
            page.goto(origin)  # still signed in: cookies are of a host, whatever its port
            count = page.locator(".photos img").count()
            body = picture("PNG")
            choose_and_upload(page, {"name": "me.png", "mimeType": "image/png", "buffer": body}, by)
            page.wait_for_function("count => document.querySelectorAll('.photos img').length > count", arg=count)
            reference = place.photos()[-1]["original"]
            assert reference.startswith(f"{sandbox.azure_account_url}/{name}/u/{PROFILE}/")
            assert page.locator(f"img[src='{reference}']").evaluate("i => i.decode().then(() => i.naturalWidth)") == 64
            page.goto(place.foreign_origin)
            ticket = azure.put_ticket(PROFILE, Wish(content_type="image/png", size=len(body)))
            assert send_from(page, ticket, body) == {"error": "TypeError: Failed to fetch"}
            assert not account.get_blob_client(name, ticket.key).exists()
        finally:
            account.set_service_properties(cors=[])
            account.delete_container(name)


def test_the_app_gives_no_ticket_for_what_is_not_allowed(page: Page, place: Place) -> None:
    before = place.objects()
    for name, content_type, size, said in (
        ("page.html", "text/html", 100, "not allowed"),
        ("big.jpg", "image/jpeg", RULES.max_bytes + 1, "200001 bytes"),
        ("empty.jpg", "image/jpeg", 0, "0 bytes"),
    ):
        page.goto(place.origin)
        choose_and_upload(page, {"name": name, "mimeType": content_type, "buffer": bytes(size)}, "put")
        assert said in refused(page)
    assert place.objects() == before


def test_a_wrong_type_is_refused_by_the_store(page: Page, place: Place) -> None:
    before, body = place.objects(), b"<script>alert(1)</script>"
    put, form = tickets(place, len(body))
    page.goto(place.origin)
    answer = send_from(page, put, body, headers={"Content-Type": "text/html"})
    assert (answer["status"], "SignatureDoesNotMatch" in answer["body"]) == (403, True)
    answer = send_from(page, form, body, fields={"Content-Type": "text/html"})
    assert (answer["status"], "AccessDenied" in answer["body"]) == (403, True)
    assert place.objects() == before


def test_an_oversized_file_is_refused_by_the_store(page: Page, place: Place) -> None:
    before = place.objects()
    put, form = tickets(place, 1000)
    page.goto(place.origin)
    answer = send_from(page, put, bytes(1001))
    assert (answer["status"], "SignatureDoesNotMatch" in answer["body"]) == (403, True)
    answer = send_from(page, form, bytes(RULES.max_bytes + 1))
    assert (answer["status"], "EntityTooLarge" in answer["body"]) == (400, True)
    assert place.objects() == before


def test_an_expired_url_is_refused_by_the_store(page: Page, place: Place) -> None:
    before, body = place.objects(), picture("JPEG")
    with signed_at(RULES.expires_in + timedelta(seconds=2)):
        put, form = tickets(place, len(body))
    page.goto(place.origin)
    for ticket in (put, form):
        answer = send_from(page, ticket, body)
        assert answer["status"] == 403
        assert "time is over" in explain(answer["body"])
    assert place.objects() == before


def test_a_url_used_before_is_refused_by_the_store(page: Page, place: Place) -> None:
    body = picture("JPEG")
    put, _ = tickets(place, len(body))
    page.goto(place.origin)
    assert send_from(page, put, body)["status"] == 200
    assert send_from(page, put, bytes(len(body)))["status"] == 412
    assert place.client.get_object(Bucket=place.bucket.name, Key=put.key)["Body"].read() == body


def test_a_foreign_origin_is_refused_by_the_store(page: Page, place: Place) -> None:
    """By PUT: the browser asks the store first, and the store says no.

    By form: browsers ask nobody before they send one, so a store cannot refuse an origin; what protects is that a
    foreign page gets no ticket from the app, and cannot read the store's answer.
    """
    before, body = place.objects(), picture("JPEG")
    put, form = tickets(place, len(body))
    page.goto(place.foreign_origin)
    assert send_from(page, put, body) == {"error": "TypeError: Failed to fetch"}
    assert place.objects() == before
    preflights = _preflight(page, put)
    assert preflights == 403
    assert send_from(page, form, body) == {"error": "TypeError: Failed to fetch"}
    assert place.objects() == {**before, form.key: len(body)}
    # The same tickets work from the app's own origin: nothing else was wrong with them.
    page.goto(place.origin)
    assert send_from(page, put, body)["status"] == 200


def _preflight(page: Page, ticket: PutTicket) -> int:
    """The store's status for what the page's browser asks before it PUTs."""
    asked = page.request.fetch(
        ticket.url,
        method="OPTIONS",
        headers={
            "Origin": page.evaluate("location.origin"),
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": ",".join(sorted(name.lower() for name in ticket.headers)),
        },
    )
    return asked.status


def test_a_foreign_page_gets_no_ticket_and_confirms_nothing(page: Page, place: Place) -> None:
    ask = """async ([url, mode]) => {
      try {
        const answer = await fetch(url, {
          method: "POST", mode, credentials: "include", headers: { "Content-Type": "text/plain" }, body: "{}",
        });
        return [answer.type, answer.status];
      } catch (error) { return String(error); }
    }"""
    page.goto(place.foreign_origin)
    for path in ("/tickets", "/photos", "/sign-in"):
        with page.expect_response(place.origin + path) as response:
            assert page.evaluate(ask, [place.origin + path, "no-cors"]) == ["opaque", 0]
        assert response.value.status == 403


def test_the_app_writes_no_reference_to_what_is_not_there_or_not_its_own(page: Page, place: Place) -> None:
    before = place.photos()
    put, _ = tickets(place, 1000)
    wrong, _ = tickets(place, 1000)
    theirs = place.uploads.put_ticket("8", Wish(content_type="image/jpeg", size=1000))
    place.client.put_object(Bucket=place.bucket.name, Key=theirs.key, Body=bytes(1000), ContentType="image/jpeg")
    place.client.put_object(Bucket=place.bucket.name, Key=wrong.key, Body=bytes(1000), ContentType="text/html")
    page.goto(place.origin)
    foreign = "https://evil.example/a.jpg"
    for reference in (put.reference, theirs.reference, wrong.reference, foreign, ""):
        assert page.evaluate(CONFIRM, reference) == 422
    assert place.photos() == before
    assert place.photos("8") == []
    # What is not what was allowed goes; what is another's stays.
    assert wrong.key not in place.objects()
    assert theirs.key in place.objects()


def test_a_file_that_a_row_refers_to_is_never_discarded(page: Page, place: Place) -> None:
    """Its uploader can replace it by a form until that ends; what is shown then is theirs, but it is there."""
    body = picture("JPEG")
    _, form = tickets(place, len(body))
    page.goto(place.origin)
    assert send_from(page, form, body)["status"] == 201
    assert page.evaluate(CONFIRM, form.reference) == 201
    place.client.put_object(Bucket=place.bucket.name, Key=form.key, Body=b"<p>", ContentType="text/html")
    assert page.evaluate(CONFIRM, form.reference) == 422
    assert form.key in place.objects()


def test_a_confirmation_sent_twice_adds_one_photo(page: Page, place: Place) -> None:
    body = picture("JPEG")
    put, _ = tickets(place, len(body))
    page.goto(place.origin)
    assert send_from(page, put, body)["status"] == 200
    before = place.photos()
    twice = """async (reference) => Promise.all([1, 2].map(() => fetch("/photos", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ reference }),
    }).then((answer) => answer.status)))"""
    assert page.evaluate(twice, put.reference) == [201, 201]
    assert [photo.get("original") for photo in place.photos()] == [
        *(photo.get("original") for photo in before),
        put.reference,
    ]
    photo = place.photos()[-1]
    answer = page.request.get(f"{place.origin}/photos/{photo['id']}/file")
    assert (answer.status, answer.body()) == (200, body)
    assert "X-Amz-Signature" in answer.url
