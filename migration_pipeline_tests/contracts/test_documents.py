"""What every document store has to keep, on Google's emulator where it is installed and on our stand-in."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import google.cloud.firestore
import pytest
from google.auth.credentials import AnonymousCredentials

from migration_pipeline.adapters.firestore import FirestoreDocuments
from migration_pipeline.sandbox.firestore import FirestoreServer, emulator_jar


@pytest.fixture(scope="module", params=["emulator", "standin"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirestoreServer]:
    if request.param == "emulator" and emulator_jar() is None:
        pytest.skip("Google's Firestore emulator (Cloud SDK and Java) is not installed on this machine")
    folder = tmp_path_factory.mktemp("firestore")
    running = FirestoreServer(folder / "data", request.param)
    yield running
    running.close()


@pytest.fixture
def client(server: FirestoreServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", server.host)
    opened = google.cloud.firestore.Client(project=f"p-{uuid4().hex[:12]}", credentials=AnonymousCredentials())
    yield opened
    opened.close()


@pytest.fixture
def documents(client: Any) -> Iterator[FirestoreDocuments]:
    opened = FirestoreDocuments(client.project, "profiles/{id}", ["photos", "cover.url"])
    yield opened
    opened.close()


def new(text: str) -> str | None:
    return text.replace("old:", "new:") if text.startswith("old:") else None


def test_reads_every_string_of_the_fields_and_leaves_missing_documents_out(
    client: Any, documents: FirestoreDocuments
) -> None:
    client.document("profiles/1").set(
        {"photos": [{"a": "old:1", "n": 1}, {"m": ["x"]}], "cover": {"url": "old:2"}, "b": "no"}
    )
    client.document("profiles/2").set({"other": True})
    found = documents.read([1, 2, 3])
    assert sorted(found[1]) == ["old:1", "old:2", "x"]
    assert list(found[2]) == []
    assert 3 not in found


def test_replaces_single_strings_and_nothing_else(client: Any, documents: FirestoreDocuments) -> None:
    before = {"photos": [{"a": "old:1", "n": 1.5}, "keep"], "cover": {"url": "old:2", "w": None}, "raw": b"\0\1"}
    client.document("profiles/1").set(before)
    done = documents.rewrite([1], new)
    assert (done.profiles, done.urls, done.conflicts) == (1, 2, 0)
    after = client.document("profiles/1").get().to_dict()
    assert after == before | {"photos": [{"a": "new:1", "n": 1.5}, "keep"], "cover": {"url": "new:2", "w": None}}


def test_writes_nothing_where_nothing_changes(client: Any, documents: FirestoreDocuments) -> None:
    client.document("profiles/1").set({"photos": ["keep"]})
    before = client.document("profiles/1").get().update_time
    assert documents.rewrite([1, 2], new).profiles == 0
    assert client.document("profiles/1").get().update_time == before


def test_an_edit_between_read_and_write_is_kept(client: Any, documents: FirestoreDocuments) -> None:
    client.document("profiles/1").set({"photos": ["old:1", "old:2"]})
    client.document("profiles/2").set({"photos": ["old:3"]})
    edits = iter([{"photos": ["old:2", "mine"]}])

    def edited_meanwhile(text: str) -> str | None:
        edit = next(edits, None)
        if edit is not None:
            client.document("profiles/1").set(edit)
        return new(text)

    done = documents.rewrite([1, 2], edited_meanwhile)
    assert done.conflicts >= 1
    assert client.document("profiles/1").get().to_dict() == {"photos": ["new:2", "mine"]}
    assert client.document("profiles/2").get().to_dict() == {"photos": ["new:3"]}


def test_a_document_deleted_between_read_and_write_stays_deleted(client: Any, documents: FirestoreDocuments) -> None:
    client.document("profiles/1").set({"photos": ["old:1"]})

    def deleted_meanwhile(text: str) -> str | None:
        client.document("profiles/1").delete()
        return new(text)

    assert documents.rewrite([1], deleted_meanwhile).profiles == 0
    assert not client.document("profiles/1").get().exists


def test_many_documents_in_one_call(client: Any, documents: FirestoreDocuments) -> None:
    for number in range(120):
        client.document(f"profiles/{number}").set({"photos": [f"old:{number}"]})
    assert documents.rewrite(range(120), new).profiles == 120
    assert documents.read(range(120)) == {n: [f"new:{n}"] for n in range(120)}
