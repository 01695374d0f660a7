"""Groups of ranges, each with a table of `wanted`: a range's work costs the same however many files there are."""

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

_Cursor = psycopg.Cursor[tuple[Any, ...]]

RANGES = 256
"""Ranges of a group.

A statement about one range touches one table, whose indexes fit into memory. One that asks who else needs a file looks
into all of them: at 5,000 ranges, the most that a plan makes, those are twenty.
"""


def group_of(range_id: int) -> int:
    """The group that a range belongs to."""
    return range_id // RANGES


def table_of(group: int) -> str:
    """The name of a group's table in the ledger's schema."""
    return f"wanted_{group}"


def make_tables(cursor: _Cursor, schema: sql.Identifier, range_ids: Iterable[int]) -> None:
    """Make the tables of these ranges' groups that are not there yet. Readers and runs at work are not disturbed."""
    missing = sorted({group_of(range_id) for range_id in range_ids} - _there(cursor, schema))
    if not missing:
        return
    # In the order in which runs lock them, so that no two wait for each other. Runs' transactions are short.
    cursor.execute(sql.SQL("LOCK TABLE {s}.files, {s}.ranges IN SHARE ROW EXCLUSIVE MODE").format(s=schema))
    for group in sorted(set(missing) - _there(cursor, schema)):
        names = {"s": schema, "group": sql.Identifier(table_of(group))}
        bounds = {"first": sql.Literal(group * RANGES), "end": sql.Literal((group + 1) * RANGES)}
        # Made apart and then attached: CREATE TABLE … PARTITION OF would wait for whoever reads `wanted`, such as a
        # report, and everybody would wait behind it (PostgreSQL documentation, "Partition Maintenance").
        cursor.execute(sql.SQL("CREATE TABLE {s}.{group} (LIKE {s}.wanted INCLUDING ALL)").format(**names))
        cursor.execute(
            sql.SQL("ALTER TABLE {s}.wanted ATTACH PARTITION {s}.{group} FOR VALUES FROM ({first}) TO ({end})").format(
                **names, **bounds
            )
        )


def _there(cursor: _Cursor, schema: sql.Identifier) -> set[int]:
    cursor.execute(
        "SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid"
        " WHERE inhparent = %s::regclass",
        [f"{schema.as_string(cursor)}.wanted"],
    )
    return {int(name.removeprefix("wanted_")) for (name,) in cursor.fetchall()}
