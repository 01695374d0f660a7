"""What every document store has to keep: Firestore (emulator and stand-in) and the Realtime Database."""

import gc
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, Protocol
from uuid import uuid4

import firebase_admin
import google.cloud.firestore
import pytest
import requests
from google.auth.credentials import AnonymousCredentials

from migration_pipeline.adapters.firebase.firestore import FirestoreDocuments
from migration_pipeline.adapters.firebase.realtime_database import RealtimeDatabaseDocuments
from migration_pipeline.adapters.firebase.write_rate import WriteRate
from migration_pipeline.core.errors import RangeLost
from migration_pipeline.core.ports import DocumentStore, Fence
from migration_pipeline.core.values import ReplaceFor
from migration_pipeline.sandbox.firestore import FirestoreServer, emulator_jar
from migration_pipeline.sandbox.realtime_database import RealtimeDatabaseServer
from migration_pipeline_tests.replacing import strings, whole

FIELDS = ["photos", "cover.url"]
UNBOUNDED = WriteRate(math.inf)


class Documents(Protocol):
    """A database as a client of the app sees it."""

    store: DocumentStore

    def paced(self, writes: WriteRate) -> DocumentStore: ...
    def put(self, id_: int, document: Mapping[str, Any]) -> None: ...
    def get(self, id_: int) -> Any: ...
    def delete(self, id_: int) -> None: ...


class Firestore:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.store = self.paced(UNBOUNDED)

    def paced(self, writes: WriteRate) -> FirestoreDocuments:
        return FirestoreDocuments(self._client.project, "profiles/{id}", FIELDS, writes)

    def put(self, id_: int, document: Mapping[str, Any]) -> None:
        self._client.document(f"profiles/{id_}").set(document)

    def get(self, id_: int) -> Any:
        return self._client.document(f"profiles/{id_}").get().to_dict()

    def delete(self, id_: int) -> None:
        self._client.document(f"profiles/{id_}").delete()


class Realtime:
    def __init__(self, host: str) -> None:
        self._host, self._namespace = host, f"n{uuid4().hex[:12]}"
        self.store = self.paced(UNBOUNDED)

    def paced(self, writes: WriteRate) -> RealtimeDatabaseDocuments:
        url = f"https://{self._namespace}.example.com"
        return RealtimeDatabaseDocuments("demo", url, "profiles/{id}", FIELDS, writes)

    def put(self, id_: int, document: Mapping[str, Any]) -> None:
        requests.put(self._url(id_), json=document, timeout=10).raise_for_status()

    def get(self, id_: int) -> Any:
        return requests.get(self._url(id_), timeout=10).json()

    def delete(self, id_: int) -> None:
        requests.delete(self._url(id_), timeout=10).raise_for_status()

    def _url(self, id_: int) -> str:
        return f"http://{self._host}/profiles/{id_}.json?ns={self._namespace}"


@pytest.fixture(scope="module", params=["emulator", "standin", "realtime database"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FirestoreServer | RealtimeDatabaseServer]:
    if request.param == "emulator" and emulator_jar() is None:
        pytest.skip("Google's Firestore emulator (Cloud SDK and Java) is not installed on this machine")
    folder = tmp_path_factory.mktemp("documents") / "data"
    running = (
        RealtimeDatabaseServer(folder)
        if request.param == "realtime database"
        else FirestoreServer(folder, request.param)
    )
    yield running
    running.close()


@pytest.fixture
def documents(server: FirestoreServer | RealtimeDatabaseServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Documents]:
    if isinstance(server, RealtimeDatabaseServer):
        monkeypatch.setenv("FIREBASE_DATABASE_EMULATOR_HOST", server.host)
        nodes = Realtime(server.host)
        yield nodes
        nodes.store.close()
        return
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", server.host)
    client = google.cloud.firestore.Client(project=f"p-{uuid4().hex[:12]}", credentials=AnonymousCredentials())
    opened = Firestore(client)
    yield opened
    opened.store.close()
    client.close()


def new(text: str) -> str | None:
    return text.replace("old:", "new:") if text.startswith("old:") else None


def always(new_of: Callable[[str], str | None]) -> ReplaceFor:
    return lambda _: whole(new_of)


def ours() -> None:
    """Nobody took the range."""


OURS = Fence("range", 1, 1, ours)


def test_reads_every_string_of_the_fields_and_leaves_missing_documents_out(documents: Documents) -> None:
    documents.put(1, {"photos": [{"a": "old:1", "n": 1}, {"m": ["x"]}], "cover": {"url": "old:2"}, "b": "no"})
    documents.put(2, {"other": True})
    found = documents.store.read([1, 2, 3])
    assert sorted(strings(found[1])) == ["old:1", "old:2", "x"]
    assert {text.text for text in found[1] if text.is_key} == {"a", "n", "m"}
    assert list(found[2]) == []
    assert 3 not in found


def test_replaces_single_strings_and_nothing_else(documents: Documents) -> None:
    before = {"photos": [{"a": "old:1", "n": 1.5}, "keep"], "cover": {"url": "old:2", "w": "x"}, "raw": "old:raw"}
    documents.put(1, before)
    done = documents.store.rewrite([1], always(new), OURS)
    assert (done.profiles, done.urls, done.conflicts) == (1, 2, 0)
    assert documents.get(1) == before | {
        "photos": [{"a": "new:1", "n": 1.5}, "keep"], "cover": {"url": "new:2", "w": "x"},
    }  # fmt: skip


def test_each_profile_has_a_replacing_of_its_own(documents: Documents) -> None:
    for id_ in (1, 2):
        documents.put(id_, {"photos": ["old:x"]})
    documents.store.rewrite([1, 2], lambda id_: whole(lambda _: f"for {id_}"), OURS)
    assert [documents.get(id_)["photos"] for id_ in (1, 2)] == [["for 1"], ["for 2"]]


def test_a_list_of_which_items_were_taken_away_keeps_its_places(documents: Documents) -> None:
    documents.put(1, {"photos": {"0": "old:0", "3": "old:3", "name": "old:n"}})
    documents.store.rewrite([1], always(new), OURS)
    assert documents.get(1)["photos"] == {"0": "new:0", "3": "new:3", "name": "new:n"}


def test_writes_nothing_where_nothing_changes(documents: Documents) -> None:
    documents.put(1, {"photos": ["keep"]})
    asked: list[str] = []

    def look(text: str) -> str | None:
        asked.append(text)
        return None

    # A fence that nobody passes shows that nothing is about to be written.
    done = documents.store.rewrite([1, 2], always(look), OURS)
    assert (done.profiles, done.urls, asked) == (0, 0, ["keep"])
    assert documents.get(1) == {"photos": ["keep"]}


def test_an_edit_between_read_and_write_is_kept(documents: Documents) -> None:
    documents.put(1, {"photos": ["old:1", "old:2"]})
    documents.put(2, {"photos": ["old:3"]})
    edits = iter([{"photos": ["old:2", "mine"]}])

    def edited_meanwhile(text: str) -> str | None:
        edit = next(edits, None)
        if edit is not None:
            documents.put(1, edit)
        return new(text)

    done = documents.store.rewrite([1, 2], always(edited_meanwhile), OURS)
    assert done.conflicts >= 1
    assert documents.get(1) == {"photos": ["new:2", "mine"]}
    assert documents.get(2) == {"photos": ["new:3"]}


def test_an_edit_of_one_field_leaves_no_other_field_behind(documents: Documents) -> None:
    documents.put(1, {"photos": ["old:1"], "cover": {"url": "old:2"}})
    edits = iter([{"photos": ["old:1"], "cover": {"url": "old:3"}}])

    def edited_meanwhile(text: str) -> str | None:
        if text == "old:2":
            documents.put(1, next(edits))
        return new(text)

    done = documents.store.rewrite([1], always(edited_meanwhile), OURS)
    assert done.conflicts >= 1
    assert documents.get(1) == {"photos": ["new:1"], "cover": {"url": "new:3"}}


def test_a_document_deleted_between_read_and_write_stays_deleted(documents: Documents) -> None:
    documents.put(1, {"photos": ["old:1"]})

    def deleted_meanwhile(text: str) -> str | None:
        documents.delete(1)
        return new(text)

    assert documents.store.rewrite([1], always(deleted_meanwhile), OURS).profiles == 0
    assert documents.get(1) is None


def test_a_run_that_lost_its_range_after_reading_writes_nothing(documents: Documents) -> None:
    documents.put(1, {"photos": ["old:1"]})

    def lost() -> None:
        raise RangeLost("range")

    with pytest.raises(RangeLost):
        documents.store.rewrite([1], always(new), Fence("range", 1, 1, lost))
    assert documents.get(1) == {"photos": ["old:1"]}


def test_a_run_that_lost_its_range_while_its_writes_waited_writes_nothing(documents: Documents) -> None:
    documents.put(1, {"photos": ["old:1"]})
    lost: list[float] = []

    def check() -> None:
        if lost:
            raise RangeLost("range")

    rate = WriteRate(1, sleep=lost.append)
    rate.take(1)
    with closing(documents.paced(rate)) as store, pytest.raises(RangeLost):
        store.rewrite([1], always(new), Fence("range", 1, 1, check))
    assert len(lost) == 1
    assert documents.get(1) == {"photos": ["old:1"]}


def test_a_document_that_outgrows_the_limit_is_left_and_the_others_are_written(documents: Documents) -> None:
    full = {"photos": ["old:1"], "padding": "x" * (1024 * 1024 - 1000)}
    documents.put(1, full)
    documents.put(2, {"photos": ["old:2"]})
    longer = {"old:1": f"new:{'1' * 2000}", "old:2": "new:2"}
    done = documents.store.rewrite([1, 2], always(longer.get), OURS)
    assert documents.get(2) == {"photos": ["new:2"]}
    if isinstance(documents, Firestore):
        assert (done.profiles, done.conflicts) == (1, 0)
        assert documents.get(1) == full
    else:  # it has no such limit
        assert done.profiles == 2
        assert documents.get(1) == full | {"photos": [longer["old:1"]]}


def test_many_documents_in_one_call(documents: Documents) -> None:
    for number in range(120):
        documents.put(number, {"photos": [f"old:{number}"]})
    assert documents.store.rewrite(range(120), always(new), OURS).profiles == 120
    found = {n: strings(texts) for n, texts in documents.store.read(range(120)).items()}
    assert found == {n: [f"new:{n}"] for n in range(120)}


def test_a_document_edited_all_the_time_is_left_alone(documents: Documents) -> None:
    documents.put(1, {"photos": ["old:1"]})
    edits = iter(range(1000))

    def edited_meanwhile(text: str) -> str | None:
        documents.put(1, {"photos": ["old:1", f"edit {next(edits)}"]})
        return new(text)

    done = documents.store.rewrite([1], always(edited_meanwhile), OURS)
    assert done.profiles == 0
    assert documents.get(1)["photos"][0] == "old:1"


def test_ids_that_no_node_can_have_are_nobodys(documents: Documents) -> None:
    if isinstance(documents, Firestore):
        assert documents.store.read(["a.b", "[1]"]) == {}  # they may be there
        documents.put(77, {"photos": ["old://a"]})
        # Neither a document below another profile's, nor an error that would end the range for everybody.
        none = ["77/photos", "77/photos/b", "", ".", "..", "__a__", "/"]
        assert documents.store.read([*none, "77"]).keys() == {"77"}
        assert documents.store.rewrite(none, always(new), OURS).profiles == 0
        return
    assert documents.store.read(["a.b", "a/b", "[1]", ""]) == {}
    assert documents.store.rewrite(["a#b", "$"], always(new), OURS).profiles == 0


def test_what_is_closed_is_let_go(documents: Documents) -> None:
    documents.put(1, {"photos": ["old:1"]})
    gc.collect()
    before = apps()
    for _ in range(3):
        open_and_close(documents)
    gc.collect()
    assert apps() == before


def open_and_close(documents: Documents) -> None:
    store: Any = documents.paced(UNBOUNDED)
    assert strings(store.read([1])[1]) == ["old:1"]
    store.close()


def apps() -> int:
    """Apps of firebase-admin's, each with its client, that this process holds."""
    return sum(isinstance(found, firebase_admin.App) for found in gc.get_objects())


def test_writes_are_spaced() -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    rate = WriteRate(10, clock=lambda: now[0], sleep=sleep)
    rate.take(5)
    rate.take(1)
    now[0] += 10
    rate.take(1)
    assert slept == [0.5]
