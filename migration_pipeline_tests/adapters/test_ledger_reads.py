"""How much the ledger's statements read: what a range has, whatever Postgres believes of one that it has not seen."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.ledger.postgres_range import PostgresRangeLedger
from migration_pipeline.core.model import ProfileRange, SourceFile, Wish
from migration_pipeline.sandbox import Sandbox

OLD = [ProfileRange(f"range-{n}", n, n * 10, n * 10 + 9, 10) for n in range(1, 121)]
NEW = ProfileRange("range-121", 121, 1210, 1219, 10)
FILES = 1000
COPIED = """
    WITH made AS (SELECT n, gen_random_uuid() AS file_id FROM generate_series(1, 500 * %(ranges)s) n), noted AS (
        INSERT INTO migration.files (file_id, container, blob, outcome, ended_at)
        SELECT file_id, 'photos', 'old/' || n, 'copied', now() FROM made)
    INSERT INTO migration.wanted (range_id, profile_id, file_id) SELECT 1 + n %% %(ranges)s, n, file_id FROM made
"""


@pytest.fixture
def ledger(sandbox: Sandbox) -> Iterator[PostgresLedger]:
    """With statistics of other ranges, whose files were all copied: few of the new one's rows are expected."""
    url = sandbox.create_database(f"d{uuid4().hex[:12]}")
    with closing(PostgresLedger(url, "migration")) as opened:
        opened.add_ranges([*OLD, NEW])
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(COPIED, {"ranges": len(OLD)})
            connection.execute("VACUUM ANALYZE")
        yield opened


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Rows that scans of whole tables read within the newest transaction, by table."""
    found: dict[str, int] = {}
    write = PostgresRangeLedger._write  # noqa: SLF001 - there is no other way into its transaction

    def counting(self: PostgresRangeLedger, work: Callable[[Any], Any], **how: Any) -> Any:
        def counted(cursor: Any) -> Any:
            result = work(cursor)
            cursor.execute("SELECT relname, seq_tup_read FROM pg_stat_xact_all_tables WHERE seq_tup_read > 0")
            found.clear()
            found.update(cursor.fetchall())
            return result

        return write(self, counted, **how)

    monkeypatch.setattr(PostgresRangeLedger, "_write", counting)
    return found


def test_a_new_range_is_not_compared_file_by_file(ledger: PostgresLedger, scanned: dict[str, int]) -> None:
    with ledger.hold(NEW.key) as (_, held):
        files = [SourceFile("photos", f"new/{n}.jpg") for n in range(FILES)]
        wanted = [Wish(NEW.last, file, "u", had_query=False) for file in files]
        held.want(wanted)
        assert FILES <= scanned["wanted_now"] <= 10 * FILES
        held.note_held([])  # nobody holds any of them
        held.want(wanted)  # and somebody does again
        assert len(held.unfinished()) == FILES
        assert FILES <= scanned["wanted_now"] <= 10 * FILES
