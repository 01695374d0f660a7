"""Firebase's documented REST protocol of the Realtime Database, asked of our stand-in.

Sources: firebase.google.com/docs/reference/rest/database (methods, conditional requests, shallow, print) and
/docs/database/rest/retrieve-data (ordering and limits). Half of it is asked through firebase-admin, which must work.
"""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import firebase_admin
import pytest
from firebase_admin import credentials, db
from google.auth.credentials import AnonymousCredentials

from migration_pipeline.sandbox import Sandbox


class Answer(NamedTuple):
    status: int
    body: Any
    etag: str | None


class Rest:
    """Plain HTTP, nothing of Firebase's."""

    def __init__(self, host: str, namespace: str) -> None:
        self.host, self.namespace = host, namespace

    def __call__(self, method: str, path: str, body: Any = None, *, query: str = "", **headers: str) -> Answer:
        request = urllib.request.Request(
            f"http://{self.host}/{urllib.parse.quote(path)}.json?ns={self.namespace}{query}",
            data=None if method in ("GET", "DELETE") else json.dumps(body).encode(),
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http, as written above
                text = answer.read()
                return Answer(answer.status, json.loads(text) if text else None, answer.headers["ETag"])
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
                return Answer(error.code, json.loads(text) if text else None, error.headers["ETag"])


class _Anonymous(credentials.Base):
    def get_credential(self) -> AnonymousCredentials:
        return AnonymousCredentials()


@pytest.fixture
def rest(sandbox: Sandbox) -> Rest:
    return Rest(sandbox.environment["FIREBASE_DATABASE_EMULATOR_HOST"], f"n{uuid4().hex[:12]}")


@pytest.fixture
def root(rest: Rest) -> Iterator[db.Reference]:
    url = f"http://{rest.host}/?ns={rest.namespace}"
    app = firebase_admin.initialize_app(_Anonymous(), {"databaseURL": url}, name=rest.namespace)
    yield db.reference("t", app)
    firebase_admin.delete_app(app)


PROFILE = {"name": "a", "photos": {"p1": {"url": "https://old/1", "w": 1}, "p2": {"url": "https://old/2"}}}


def test_values_of_every_kind_come_back(root: db.Reference) -> None:
    root.child("u").set(PROFILE)
    assert root.child("u").get() == PROFILE
    assert root.child("u/photos/p1/url").get() == "https://old/1"
    assert root.child("nope").get() is None
    assert root.child("u").get(shallow=True) == {"name": True, "photos": True}
    for value in (True, False, 0, -1.5, '写真é \\ "', 2**40):
        root.child("v").set(value)
        assert root.child("v").get() == value


def test_an_update_touches_the_named_paths_alone(root: db.Reference) -> None:
    root.child("u").set(PROFILE)
    root.child("u").update({"photos/p1/url": "https://new/1", "photos/p2/url": "https://new/2", "photos/p1/w": None})
    assert root.child("u").get() == {
        "name": "a",
        "photos": {"p1": {"url": "https://new/1"}, "p2": {"url": "https://new/2"}},
    }


def test_an_update_is_made_whole_or_not_at_all(rest: Rest) -> None:
    rest("PUT", "u", {"a": 1, "b": 2})
    assert rest("PATCH", "u", {"a": 9, "b/bad.key": 9}).status == 400
    assert rest("PATCH", "u", {"a": 9, "a/inside": 9}).status == 400
    assert rest("GET", "u").body == {"a": 1, "b": 2}


def test_etags_tell_versions_apart(root: db.Reference, rest: Rest) -> None:
    root.child("u").set(PROFILE)
    _, first = root.child("u").get(etag=True)
    assert root.child("u").get(etag=True)[1] == first
    assert root.child("u").get_if_changed(first) == (False, None, None)
    root.child("u/name").set("b")
    changed, value, second = root.child("u").get_if_changed(first)
    assert (changed, value["name"]) == (True, "b")
    assert second != first
    assert rest("GET", "t/nope", X_Firebase_ETag="true").etag == "null_etag"
    assert rest("GET", "t/u").etag is None


def test_a_conditional_write_is_refused_with_what_is_there_now(root: db.Reference, rest: Rest) -> None:
    root.child("u").set(PROFILE)
    value, tag = root.child("u").get(etag=True)
    assert root.child("u").set_if_unchanged(tag, value | {"name": "c"})[0] is True
    written, now, newer = root.child("u").set_if_unchanged(tag, {"name": "lost"})
    assert (written, now["name"]) == (False, "c")
    assert newer == root.child("u").get(etag=True)[1]
    refused = rest("DELETE", "t/u", if_match=tag)
    assert (refused.status, refused.body["name"], refused.etag) == (412, "c", newer)
    assert rest("PUT", "t/fresh", 1, if_match="null_etag").status == 200
    assert rest("PUT", "t/fresh", 2, if_match="null_etag").status == 412
    assert rest("GET", "t/fresh").body == 1
    assert rest("DELETE", "t/u", if_match=newer).status == 200
    assert root.child("u").get() is None


def test_transactions_of_many_clients_lose_nothing(root: db.Reference) -> None:
    errors: list[Exception] = []

    def add_five() -> None:
        try:
            for _ in range(5):
                root.child("count").transaction(lambda value: (value or 0) + 1)
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=add_five) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert root.child("count").get() == 20


def test_pushed_children_keep_their_order(root: db.Reference) -> None:
    keys = [root.child("list").push({"n": number}).key for number in range(3)]
    assert len(keys[0]) == 20
    assert [item["n"] for item in root.child("list").order_by_key().get().values()].count(0) == 1
    assert root.child("list").get().keys() == set(keys)


def test_nothing_empty_is_kept(root: db.Reference) -> None:
    root.child("x/y/z").set(1)
    root.child("x/y/z").delete()
    assert root.child("x").get() is None
    root.child("x").update({"a": {}, "b": [], "c": {"d": None}})
    assert root.child("x").get() is None
    root.child("x").set("text")
    root.child("x/y").delete()
    assert root.child("x").get() == "text"


@pytest.mark.parametrize(
    ("put", "got"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", None, "c"], ["a", None, "c"]),
        ({"0": "a", "1": "b"}, ["a", "b"]),
        ({"1": "a"}, [None, "a"]),
        ({"3": "a"}, {"3": "a"}),
        ({"0": "a", "x": "b"}, {"0": "a", "x": "b"}),
        ({"-1": "a"}, {"-1": "a"}),
        ({"00": "a"}, {"00": "a"}),
    ],
)
def test_arrays_are_objects_with_integer_keys(rest: Rest, put: Any, got: Any) -> None:
    rest("PUT", "a", put)
    assert rest("GET", "a").body == got


def test_queries(root: db.Reference, rest: Rest) -> None:
    root.child("q").set({f"k{i:02d}": {"n": i, "url": f"https://old/{i:02d}"} for i in range(10)})
    q = root.child("q")
    assert list(q.order_by_key().start_at("k03").limit_to_first(3).get()) == ["k03", "k04", "k05"]
    assert list(q.order_by_child("n").equal_to(4).get()) == ["k04"]
    assert list(q.order_by_child("url").start_at("https://old/07").end_at("https://old/08").get()) == ["k07", "k08"]
    assert list(q.order_by_key().limit_to_last(2).get()) == ["k08", "k09"]
    root.child("mixed").set({"a": 1, "b": "x", "c": False, "d": {"e": 1}, "f": True})
    assert list(root.child("mixed").order_by_value().get()) == ["c", "f", "a", "b", "d"]
    assert rest("GET", "t/q", query="&limitToFirst=2").status == 400
    assert rest("GET", "t/q", query="&shallow=true&orderBy=%22%24key%22").status == 400


def test_server_values(root: db.Reference) -> None:
    root.child("at").set({".sv": "timestamp"})
    assert root.child("at").get() > 1_700_000_000_000
    root.child("n").set(3)
    root.child("n").set({".sv": {"increment": 4}})
    assert root.child("n").get() == 7


def test_answers_of_writes(rest: Rest) -> None:
    assert rest("PUT", "u", {"a": [1]}) == Answer(200, {"a": [1]}, None)
    assert rest("PATCH", "u", {"b": 2}) == Answer(200, {"b": 2}, None)
    assert rest("PUT", "u", {"a": 1}, query="&print=silent") == Answer(204, None, None)
    assert rest("DELETE", "u") == Answer(200, None, None)
    assert rest("POST", "u", 1, X_HTTP_Method_Override="PUT").status == 200
    assert rest("GET", "u").body == 1


@pytest.mark.parametrize("key", ["a.b", "a#b", "a$b", "a[b", "a\x01b", "k" * 769])
def test_keys_that_no_node_can_have_are_refused(rest: Rest, key: str) -> None:
    assert rest("PUT", "u", {key: 1}).status == 400
    assert rest("GET", "u").body is None


def test_namespaces_are_databases_of_their_own(rest: Rest) -> None:
    rest("PUT", "u", 1)
    assert Rest(rest.host, "another")("GET", "u").body is None
