"""docs/ledger.md names every table and column of a real ledger, with its type, and no others."""

import re
from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import psycopg
import pytest

from migration_pipeline.adapters.ledger.schema import bring_up_to_date
from migration_pipeline.sandbox import Sandbox
from migration_pipeline_tests import pages

Columns = dict[str, dict[str, tuple[str, bool]]]
"""Of each table, the columns: type, and whether it may be null."""


@pytest.fixture
def ledger(sandbox: Sandbox) -> Iterator[Columns]:
    with closing(psycopg.connect(sandbox.create_database(f"l{uuid4().hex[:12]}"))) as connection:
        bring_up_to_date(connection, "migration")
        rows = connection.execute(
            "SELECT relname, attname, format_type(atttypid, NULL), NOT attnotnull"
            " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
            " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            " WHERE nspname = 'migration' AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped"
        )
        columns: Columns = {}
        for table, column, kind, nullable in rows:
            short = kind.replace("timestamp with time zone", "timestamptz")
            columns.setdefault(table, {})[column] = short, nullable
        yield columns


def described() -> Columns:
    text = (pages.ROOT / "docs/ledger.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| `(\w+)` \| ([\w\[\]]+) \| (yes)? ?\| \S.*\. \|$", re.MULTILINE)
    sections = re.split(r"^## (\w+)$", text, flags=re.MULTILINE)[1:]
    return {
        table: {column: (kind, null == "yes") for column, kind, null in row.findall(section)}
        for table, section in zip(sections[::2], sections[1::2], strict=True)
    }


def test_every_column_of_the_ledger_is_described(ledger: Columns) -> None:
    assert described() == ledger
