"""Judges what a migration did to an app's rows, by their raw text alone. Shares no code with the product."""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

import psycopg
from psycopg import sql

Rows = Counter[tuple[tuple[str, str | None], ...]]
Dump = Mapping[str, Rows]
"""Table → its rows, each as the text of its columns."""


class Change(NamedTuple):
    """A row that is not as it was."""

    table: str
    row: Mapping[str, str | None]


def dump(database_url: str) -> Dump:
    """Every row of every table that is not the migration's own, as Postgres writes its columns."""
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT c.oid::regclass::text, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c"
            " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
            " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition"
            " AND c.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'migration')"
            " GROUP BY c.oid"
        ).fetchall()
        return {name: Counter(_rows(connection, name, columns)) for name, columns in tables}


def _rows(
    connection: "psycopg.Connection[tuple[object, ...]]", name: str, columns: list[str]
) -> Iterable[tuple[tuple[str, str | None], ...]]:
    texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in columns)
    query = sql.SQL("SELECT {} FROM {}").format(texts, sql.SQL(name))  # type: ignore[arg-type] # as Postgres quotes it
    for row in connection.execute(query):
        yield tuple(zip(columns, (None if value is None else str(value) for value in row), strict=True))


def changed(before: Dump, after: Dump, *, flag: str = "photos_migrated_at") -> list[Change]:
    """Rows as they were, of those that are not so any more; whether the flag is set is no change."""
    gone = []
    for table, rows in before.items():
        for row, count in (_without(rows, flag) - _without(after.get(table, Counter()), flag)).items():
            gone += [Change(table, dict(row))] * count
    return gone


def with_urls(before: Dump, urls: Mapping[str, str]) -> Dump:
    """What there must be if these URLs were re-pointed, and not a byte else."""

    def text(value: str | None) -> str | None:
        for old in sorted(urls, key=len, reverse=True):  # one may begin another
            value = value.replace(old, urls[old]) if value is not None else None
        return value

    return {
        table: Counter({tuple((name, text(value)) for name, value in row): n for row, n in rows.items()})
        for table, rows in before.items()
    }


def holding(rows: Dump, needle: str) -> list[Change]:
    """Rows with a text in them somewhere, in whatever column."""
    return [
        Change(table, dict(row))
        for table, found in rows.items()
        for row in found
        if any(needle in (value or "") for _, value in row)
    ]


def says(text: str) -> str:
    """What a text says once every escape that is known here is undone, over and over; in lower case."""
    for _ in range(8):
        text = unquote(html.unescape(text))
        text = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
        text = re.sub(r"\\([0-9a-fA-F]{2}) ", lambda m: chr(int(m[1], 16)), text)
        text = unicodedata.normalize("NFKC", text.replace("\\", "/").replace("\u200b", "").replace("\ufeff", ""))
    return re.sub(r"/+", "/", text).lower()


def names(text: str, *places: str) -> bool:
    """Whether a text names one of these places, beginnings of URLs without a scheme, in whatever spelling."""
    return any(re.search(rf"(?<![a-z0-9-]){re.escape(place.lower())}", says(text)) for place in places)


def _without(rows: Rows, flag: str) -> Rows:
    left: Rows = Counter()
    for row, count in rows.items():
        left[tuple((name, value) for name, value in row if name != flag)] += count
    return left
