"""What names the source inside something larger is seen, in whatever spelling; what moves, moves alone, and comes back.

One app with a profile for each shape, and a twin for each that names the same blobs plainly: what is removed once the
twin has moved may be named in the shape alone.
"""

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Json, Jsonb

from migration_pipeline import upkeep
from migration_pipeline.commands.status import status
from migration_pipeline.core.audit import Audited
from migration_pipeline.core.decommission import Removal, Rules, decommission
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.estimate import Estimate
from migration_pipeline.core.plan_words import to_decide
from migration_pipeline.core.queries import Query
from migration_pipeline.core.removal_report import Decommissioned
from migration_pipeline.core.rollback import RolledBack
from migration_pipeline.core.sample import SampledFiles
from migration_pipeline.core.sweep import Swept
from migration_pipeline.planning import Planned, estimate, plan
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.stores import open_ledger, open_removal, open_stores
from migration_pipeline_tests.scenarios.hostile_app import checker
from migration_pipeline_tests.scenarios.hostile_app.app import HostileApp, hostile_app
from migration_pipeline_tests.scenarios.hostile_app.shapes import Places, Shape, shapes

TABLES = (
    "CREATE TABLE profiles (id bigint PRIMARY KEY, photos jsonb, raw json, cover text, extra text[], bio text,"
    " avatar text, names text[], notes text, photos_migrated_at timestamptz);"
)
PROFILES = (
    '{ columns = ["photos", "raw", "cover", "extra", { name = "bio", embedded = true },'
    ' { name = "avatar", base = "<account>/<container>/" },'
    ' { name = "names", base = "<account>/<container>/", repoint = true }] }'
)
ALIASES = (
    '{"cdn.hostile.example": "*", "b\\u00fccher.example": "<container>", "static.hostile.example/media": "<container>"}'
)
NOWHERE = Places("http://127.0.0.1:1/devstoreaccount1/hostile", "http://127.0.0.1:2/x")
COLUMNS = ("photos", "raw", "cover", "extra", "bio", "avatar", "names")
Documents = dict[int, Any]


@dataclass(slots=True)
class Story:
    """All that was done to the app, and how it looked in between."""

    app: HostileApp
    project: str
    shapes: dict[int, Shape]
    planned: Planned
    estimated: tuple[Estimate, SampledFiles]
    reasons: dict[str, str] = field(default_factory=dict)
    flagged: set[str] = field(default_factory=set)
    rows: dict[str, dict[int, dict[str, str | None]]] = field(default_factory=dict)
    documents: dict[str, Documents] = field(default_factory=dict)
    swept: Swept = field(default_factory=Swept)
    audited: list[Audited] = field(default_factory=list)
    rolled_back: list[RolledBack] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    removed: Decommissioned | None = None
    in_source: set[str] = field(default_factory=set)
    in_target: set[str] = field(default_factory=set)

    def note(self, when: str) -> None:
        columns = ", ".join(f"{name}::text" for name in (*COLUMNS, "notes"))
        found = self.app.ask(f"SELECT id, {columns} FROM profiles")
        self.rows[when] = {row[0]: dict(zip((*COLUMNS, "notes"), row[1:], strict=True)) for row in found}
        with firestore(self.project) as client:
            self.documents[when] = {int(d.id): d.to_dict() for d in client.collection("profiles").stream()}


@pytest.fixture(scope="module")
def story(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Story:
    project = f"hostile-{uuid4().hex[:12]}"
    each = max(len(waiting(shapes(NOWHERE))), len(shapes(NOWHERE)) - len(waiting(shapes(NOWHERE))))
    app = hostile_app(
        sandbox,
        tmp_path_factory.mktemp("texts"),
        TABLES,
        profiles=PROFILES,
        per_range=each,
        MIGRATION_SOURCE__ALIAS_HOSTS=ALIASES,
        MIGRATION_FIREBASE__KIND="firestore",
        MIGRATION_FIREBASE__PROJECT_ID=project,
    )
    made = shapes(Places(app.az("").rstrip("/"), app.s3("").rstrip("/")))
    # What waits, what moves, and the twins of either are in ranges of their own.
    late, soon = waiting(made), [shape for shape in made if not shape.waits]
    ids = {**dict(enumerate(late, 1)), **dict(enumerate(soon, each + 1))}
    fill(app, project, ids, each)
    planned = plan(app.settings)
    told = Story(app, project, ids, planned, estimate(app.settings, planned))
    app.plan()
    assert len(app.keys) == 4
    told.note("before")
    told.reasons = app.reasons()
    told.flagged = app.flagged()
    told.note("migrated")
    with closing(open_ledger(app.settings)) as ledger:
        told.status = status(ledger).as_json()
    told.swept, told.audited = app.sweep(), app.audit()
    told.rolled_back = [upkeep.roll_back(app.settings, key, without_queries=True) for key in app.keys]
    told.note("back")
    app.run()
    told.note("again")
    app.audit()
    told.removed = remove(app)
    told.in_source = app.in_source()
    # The twins give their references up: copies that nobody names any more may go.
    app.execute("UPDATE profiles SET photos = NULL WHERE id > 1000")
    app.run()
    app.erase()
    told.in_target = app.in_target()
    told.note("end")
    return told


def waiting(made: list[Shape]) -> list[Shape]:
    return [shape for shape in made if shape.waits]


def fill(app: HostileApp, project: str, made: dict[int, Shape], each: int) -> None:
    app.upload("plain.jpg", *{blob for shape in made.values() for blob in shape.blobs})
    with psycopg.connect(app.database_url) as connection, firestore(project) as client:
        for id_ in range(1, 2 * each + 1):
            shape = made.get(id_)
            twin = Jsonb([{"u": app.az(quote(blob))} for blob in shape.blobs]) if shape and shape.blobs else None
            connection.execute("INSERT INTO profiles (id, photos) VALUES (%s, %s)", [1000 + id_, twin])
            if shape is None:
                connection.execute("INSERT INTO profiles (id, cover) VALUES (%s, 'plain.jpg')", [id_])
                continue
            row = {**shape.values, **{name: before for name, (before, _) in shape.moved.items()}}
            values = [adapted(name, row.get(name)) for name in COLUMNS]
            # What is not configured is nobody's business, whatever it names.
            connection.execute(
                f"INSERT INTO profiles (id, {', '.join(COLUMNS)}, notes) VALUES (%s{', %s' * len(COLUMNS)}, %s)",
                [id_, *values, f"<{app.az('x.jpg')}>"],
            )
            if shape.document is not None:
                client.document(f"profiles/{id_}").set({"photos": shape.document[0], "other": app.az("x.jpg")})


def adapted(name: str, value: Any) -> Any:
    return {"photos": Jsonb, "raw": Json}.get(name, lambda v: v)(value) if value is not None else None


def remove(app: HostileApp) -> Decommissioned:
    """Remove from the source what may go of ranges that are sound, whatever holds the gates."""
    with open_stores(app.settings) as stores, closing(open_ledger(app.settings)) as ledger:
        removal = Removal(ledger.removal, lambda: open_removal(app.settings))
        rules = Rules(per_second=1000, require_soft_delete=False)
        return decommission(app.keys, stores, removal, rules, holds=(), apply=True, who="ann", why="the end")


@contextmanager
def firestore(project: str) -> Iterator[Any]:
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - only where there is Firestore
    from google.cloud import firestore as google  # noqa: PLC0415 - as above

    with patch.dict(os.environ, {}):
        client = google.Client(project, credentials=AnonymousCredentials())
    try:
        yield client
    finally:
        client.close()


def numbered(story: Story) -> list[tuple[int, Shape]]:
    return list(story.shapes.items())


def test_each_shape_ends_as_it_must(story: Story) -> None:
    ends = {shape.name: story.reasons.get(str(id_), "") for id_, shape in numbered(story)}
    wrong = {
        shape.name: ends[shape.name]
        for _, shape in numbered(story)
        if bool(ends[shape.name]) != bool(shape.waits) or (shape.waits or "") not in ends[shape.name]
    }
    assert wrong == {}
    flagged = {str(id_) for id_, shape in numbered(story) if shape.waits == ""}
    twins = {str(1000 + id_) for id_, shape in numbered(story) if shape.blobs}
    assert story.flagged == flagged | twins


def test_only_whole_references_change_and_all_else_stays_to_the_byte(story: Story) -> None:
    with psycopg.connect(story.app.database_url) as connection:
        for id_, shape in numbered(story):
            expected = dict(story.rows["before"][id_])
            for name, (_, after) in shape.moved.items():
                cast = {"photos": "jsonb", "raw": "json", "extra": "text[]", "names": "text[]"}.get(name, "text")
                row = connection.execute(f"SELECT %s::{cast}::text", [adapted(name, after)]).fetchone()
                assert row is not None
                expected[name] = row[0]
            assert story.rows["migrated"][id_] == expected, shape.name
            if shape.document is not None:
                document = {"photos": shape.document[1], "other": story.app.az("x.jpg")}
                assert story.documents["migrated"][id_] == document, shape.name


def test_flagged_means_that_no_configured_value_names_the_source(story: Story) -> None:
    places = Places(story.app.az("").rstrip("/"), "")
    ours = (places.host, places.host.replace("devstoreaccount1", "devstoreaccount1-secondary"), "cdn.hostile.example/",
            "static.hostile.example/media", "b\u00fccher.example", "xn--bcher-kva.example")  # fmt: skip
    checked = 0
    for id_ in map(int, story.flagged):
        values = [story.rows["migrated"][id_][name] or "" for name in COLUMNS]
        values.append(json.dumps(story.documents["migrated"].get(id_, {}).get("photos")))
        assert not [value for value in values if checker.names(value, *ours)], id_
        checked += 1
    assert checked > 60
    # The same look finds every value that waits: it could have found one.
    for id_, shape in numbered(story):
        if shape.waits:
            values = [*story.rows["before"][id_].values(), json.dumps(story.documents["before"].get(id_))]
            assert any(checker.names(value or "", *ours) for value in values), shape.name


def test_the_plan_the_pages_and_status_say_what_waits(story: Story) -> None:
    odd = {shape.name for shape in story.shapes.values() if shape.waits == "not understood"}
    assert sum(story.planned.sampled.references[kind] for kind in ("embedded", "unparsable")) >= len(odd)
    assert story.planned.sampled.references["query"] == sum(s.waits == "query string" for s in story.shapes.values())
    assert story.planned.sampled.references["other_container"] == 1
    assert any("profiles.cover: " in text for text in story.planned.sampled.examples["embedded"])
    assert "sig=" not in str(story.planned.sampled.examples)
    expected, files = story.estimated
    assert set(files.named) == {"profiles.cover"}  # of the column that has no base
    sentences = " ".join(to_decide(expected.references, Query.WAIT, files))
    for word in (
        "embedded = true",
        'source.query to "keep"',
        "source.containers",
        "a blob has that name (profiles.cover)",
    ):
        assert word in sentences
    assert list(to_decide({}, Query.WAIT, SampledFiles())) == []
    waiting = story.status["profiles"]["waiting_for"]
    assert sum(waiting.values()) == sum(bool(shape.waits) for shape in story.shapes.values())
    assert {kind for kind, texts in story.status["examples"].items() if texts} == {"embedded", "unparsable", "query"}


def test_sweeps_and_audits_see_it_too(story: Story) -> None:
    assert story.swept.late == 0  # what waits is no news
    found = sum((audited.findings for audited in story.audited), start=story.audited[0].findings.__class__())
    assert found["embedded"] + found["unparsable"] >= sum(s.waits == "not understood" for s in story.shapes.values())
    assert found["stale"] == found["dangling"] == found["corrupt"] == 0
    assert max(audited.severity for audited in story.audited) == 1


def test_a_rollback_gives_back_what_was_there_to_the_byte(story: Story) -> None:
    assert [item for done in story.rolled_back for item in done.left] == []
    sas = {id_ for id_, shape in numbered(story) if shape.name == "a SAS"}
    for id_, row in story.rows["before"].items():
        if id_ not in sas:
            assert story.rows["back"][id_] == row, id_
    for id_ in sas:
        assert story.rows["before"][id_]["cover"] == f"{story.rows['back'][id_]['cover']}?sv=1&sig=c2ln"
    assert story.documents["back"] == story.documents["before"]
    assert {k: v for k, v in story.rows["again"].items() if k not in sas} == {
        k: v for k, v in story.rows["migrated"].items() if k not in sas
    }


def test_a_blob_that_is_named_anywhere_is_still_there(story: Story) -> None:
    removed = {blob for shape in story.shapes.values() for blob in shape.blobs} - story.in_source
    assert story.removed is not None
    assert len(removed) == story.removed.files > 10  # what moved whole is gone, so it could have
    for id_, shape in numbered(story):
        values = [*(story.rows["again"][id_][n] for n in COLUMNS), json.dumps(story.documents["again"].get(id_))]
        copies = {blob: story.app.s3(blob).partition("://")[2] for blob in shape.blobs}
        said = [checker.says(value or "") for value in values]
        named = {blob for blob, copy in copies.items() if any(blob in text.replace(copy, "") for text in said)}
        assert named <= story.in_source, shape.name
        if not shape.waits:
            assert story.in_source & set(shape.blobs) == named, f"{shape.name}: what nobody names is gone"


def test_a_copy_that_is_named_anywhere_is_still_there(story: Story) -> None:
    blobs = {blob for shape in story.shapes.values() for blob in shape.blobs}
    for id_, shape in numbered(story):
        values = [*(story.rows["end"][id_][n] for n in COLUMNS), json.dumps(story.documents["end"].get(id_))]
        named = {blob for blob in shape.blobs if any(blob in checker.says(value or "") for value in values)}
        assert named <= story.in_target, shape.name
    assert blobs <= story.in_target


def test_nothing_may_be_removed_while_something_is_not_understood(story: Story) -> None:
    app = story.app
    app.soak()
    with pytest.raises(Fatal, match="not done"):
        app.decommission()
