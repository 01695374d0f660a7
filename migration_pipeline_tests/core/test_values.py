"""Strings are found and replaced in place; everything else of a value stays as it is, to the byte."""

import json
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_pipeline.core.texts import Text
from migration_pipeline.core.values import Edit, replace_in, replace_in_json, texts_in, texts_in_json
from migration_pipeline_tests.replacing import whole

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just("https://old/a"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def moved(texts: Sequence[Text]) -> list[list[Edit]]:
    return [
        [Edit(0, len("https://old/"), "https://new/")]
        if text.text.startswith("https://old/") and not text.is_key
        else []
        for text in texts
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"n": 1.2345678901234567890123456789012345678901, "a": "keep", "a": "twice"}',
        '  [ "http://foreign/x" ,\t1e400, null ]\n',
        '{"https://old/key": 1}',
        '"a \\"https://old/\\" in a sentence"',
    ],
)
def test_what_is_not_ours_stays_to_the_byte(text: str) -> None:
    assert replace_in_json(text, moved) == (text, 0)


def test_only_the_string_changes() -> None:
    text = '{ "a":"https:\\/\\/old/x" , "n":1.10,"b" : ["https://old/y", "https://old/y"]}'
    assert replace_in_json(text, moved) == (
        '{ "a":"https:\\/\\/new\\/x" , "n":1.10,"b" : ["https://new/y", "https://new/y"]}',
        3,
    )


@given(JSON)
def test_text_and_values_are_treated_alike(value: object) -> None:
    text, count = replace_in_json(json.dumps(value), moved)
    assert (json.loads(text), count) == replace_in(value, moved)
    urls = [(found.text, found.is_key) for found in texts_in(value) if "://" in found.text]
    assert urls == [(found.text, found.is_key) for found in texts_in_json(json.dumps(value)) if "://" in found.text]


@pytest.mark.parametrize("text", ["x" * 4_000_000, '\n"é\\' * 500_000], ids=["plain", "escapes"])
def test_a_long_string_takes_no_memory_for_each_of_its_characters(text: str) -> None:
    value = json.dumps(["old://1", text])
    tracemalloc.start()
    try:
        new, count = replace_in_json(value, whole(lambda found: "new://1" if found == "old://1" else None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (count, json.loads(new)) == (1, ["new://1", text])
    assert peak < 6 * len(value)
