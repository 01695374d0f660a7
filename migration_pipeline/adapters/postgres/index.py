"""The app's Postgres database as the planner sees it; nothing is written."""

from collections.abc import Iterator, Mapping, Sequence

from psycopg import sql

from migration_pipeline.adapters.postgres.connection import translated
from migration_pipeline.adapters.postgres.profiles import PostgresProfiles
from migration_pipeline.adapters.postgres.rows import plain
from migration_pipeline.core.model import Profile, ProfileId
from migration_pipeline.core.plan_ports import Block

_SAMPLED_PAGES = 1000
"""Pages that a sample is drawn from: some megabytes, however large the table is."""


class PostgresIndex(PostgresProfiles):
    """Fulfils `ProfileIndex`."""

    _writes = False

    def bounds(self) -> tuple[ProfileId, ProfileId] | None:
        query = sql.SQL(
            "(SELECT {id} FROM {t} ORDER BY {id} LIMIT 1) UNION ALL (SELECT {id} FROM {t} ORDER BY {id} DESC LIMIT 1)"
        )
        with translated("database.profiles"), self._connection.cursor() as cursor:
            cursor.execute(query.format(id=self._profiles.owner, t=self._profiles.name))
            ids = [plain(row[0]) for row in cursor.fetchall()]
        return (ids[0], ids[1]) if ids else None

    def count(self, *, after: ProfileId | None) -> int:
        query = sql.SQL("SELECT count(*) FROM {t} WHERE {above}").format(t=self._profiles.name, above=self._above())
        with translated("database.profiles"), self._connection.cursor() as cursor:
            cursor.execute(query, {"after": after})
            ((profiles,),) = cursor.fetchall()
        return int(profiles)

    def blocks(self, *, after: ProfileId | None, profiles: int) -> Iterator[Block]:
        # Numbers alone are sorted, should Postgres sort at all: OFFSET 0 has the bytes counted before. Only the ends
        # of blocks leave the server.
        query = sql.SQL(
            "SELECT id, n, bytes, at_end FROM (SELECT id, row_number() OVER w AS n, sum(bytes) OVER w AS bytes,"
            " lead(id) OVER w IS NULL AS at_end"
            " FROM (SELECT {id} AS id, {bytes} AS bytes FROM {t} WHERE {above} ORDER BY {id} OFFSET 0) AS weighed"
            " WINDOW w AS (ORDER BY id ROWS UNBOUNDED PRECEDING)) AS numbered"
            " WHERE n %% %(size)s IN (0, 1 %% %(size)s) OR at_end ORDER BY n"
        ).format(id=self._profiles.owner, t=self._profiles.name, above=self._above(), bytes=self._bytes())
        with (
            translated("database.profiles"),
            self._connection.transaction(),
            self._connection.cursor(name="migration_ranges") as cursor,
        ):
            cursor.execute(query, {"after": after, "size": profiles})
            first: ProfileId | None = None
            counted = weighed = 0
            for id_, number, size, at_end in cursor:
                # Rows come in pairs, a block's first and last; a block of one profile is one row.
                first = plain(id_) if first is None else first
                if at_end or number % profiles == 0:
                    yield Block(first, plain(id_), number - counted, int(size) - weighed)
                    first, counted, weighed = None, number, int(size)

    def weigh(self, profile_ids: Sequence[ProfileId]) -> Mapping[ProfileId, int]:
        query = sql.SQL("SELECT {id}, {bytes} FROM {t} WHERE {id} = ANY(%s::{cast}[])").format(
            id=self._profiles.owner, bytes=self._bytes(), t=self._profiles.name, cast=self._profiles.owner_cast
        )
        with translated("database.profiles"), self._connection.cursor() as cursor:
            cursor.execute(query, [list(profile_ids)])
            return {plain(id_): size for id_, size in cursor.fetchall()}

    def sample(self, limit: int) -> Sequence[Profile]:
        with translated("database.profiles"), self._connection.cursor() as cursor:
            # By pages and not by rows: a table that was never analysed, or is bloated, is read no further.
            cursor.execute(
                "SELECT (pg_relation_size(%(t)s::regclass)"
                " + (SELECT coalesce(sum(pg_relation_size(relid)), 0) FROM pg_partition_tree(%(t)s::regclass)))"
                " / current_setting('block_size')::integer",
                {"t": self._profiles.name.as_string(self._connection)},
            )
            ((pages,),) = cursor.fetchall()
            percent = min(100.0, 100.0 * _SAMPLED_PAGES / max(1.0, float(pages)))
            # Rows of one page are alike, for they were written at the same time: so many pages, and few rows of each.
            cursor.execute(
                sql.SQL("SELECT {id} FROM {t} TABLESAMPLE SYSTEM ({percent}) ORDER BY random() LIMIT {limit}").format(
                    id=self._profiles.owner,
                    t=self._profiles.name,
                    percent=sql.Literal(percent),
                    limit=sql.Literal(limit),
                )
            )
            return self.find([plain(row[0]) for row in cursor.fetchall()])

    def _bytes(self) -> sql.Composed:
        """How much a profile's own columns hold that may have to move."""
        sizes = sql.SQL(" + ").join(column.octets() for column in self._profiles.columns)
        return sql.SQL("CASE WHEN {deleted} OR {flag} IS NOT NULL THEN 0 ELSE {sizes} END").format(
            deleted=self._deleted, flag=self._flag, sizes=sizes
        )
