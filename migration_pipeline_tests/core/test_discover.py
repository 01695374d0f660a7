"""What discovery counts: drift is what Firebase names and the database does not."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from migration_pipeline.core.discover import Discovered, discover
from migration_pipeline.core.model import Needed, Profile, ProfileRange
from migration_pipeline.core.texts import Text
from migration_pipeline.core.urls import KeyTemplate, UrlRules

URLS = UrlRules(
    account_url="https://acct.blob.core.windows.net",
    containers=["photos"],
    alias_hosts={"img.example.com": "photos"},
    public_base_url="https://cdn.example.com",
    keys=KeyTemplate("", "{container}/{blob}"),
)
A, B = (f"https://acct.blob.core.windows.net/photos/{name}.jpg" for name in "ab")
A_BY_ALIAS, A_MOVED = "https://img.example.com/a.jpg", "https://cdn.example.com/photos/a.jpg"


def discovered(row: Sequence[str], document: Sequence[str] | None) -> Discovered:
    """One profile's row and document, by the parts of the stores that discovery asks."""
    profile = Profile(1, deleted=False, flagged=False, strings=tuple(map(Text, row)))
    profiles: Any = SimpleNamespace(read=lambda _: [[profile]])
    documents: Any = SimpleNamespace(read=lambda _: {} if document is None else {1: list(map(Text, document))})
    ledger: Any = SimpleNamespace(want=lambda wishes: Needed(len(list(wishes))))
    bounds = ProfileRange("1", 1, None, 9, 1)
    return discover(bounds, profiles=profiles, documents=documents, ledger=ledger, urls=URLS)


@pytest.mark.parametrize(
    ("row", "document", "drifted"),
    [
        ([A], [A], False),
        ([A], [A_BY_ALIAS], False),
        ([A], [A_MOVED], False),
        ([A_MOVED], [A], False),
        ([A, B], [A], False),  # B stands in a table whose URLs are in no document
        ([A, B], [], False),
        ([A], None, False),
        ([A], [A, B], True),
        ([B], [A], True),
        ([], [A_MOVED], True),
        ([A], ["https://elsewhere.example.com/a.jpg"], False),
    ],
)
def test_a_profile_has_drifted_where_firebase_names_a_file_that_the_database_does_not(
    row: Sequence[str], document: Sequence[str] | None, *, drifted: bool
) -> None:
    found = discovered(row, document)
    assert found.drifted == drifted
    assert found.drifted_examples == [1] * drifted
