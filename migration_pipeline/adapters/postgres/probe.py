"""What `doctor` asks of the app's Postgres database; nothing is written."""

from collections.abc import Sequence
from typing import Any

from migration_pipeline.adapters.postgres.checks import takes_writes
from migration_pipeline.adapters.postgres.connection import translated
from migration_pipeline.adapters.postgres.index import PostgresIndex
from migration_pipeline.adapters.postgres.tables import ProfileTable, RelatedTable, Table


class PostgresProbe(PostgresIndex):
    """Looks at rights, indexes and whatever else could surprise a migration."""

    def _open(self, profiles: ProfileTable, related: Sequence[RelatedTable]) -> None:
        super()._open(profiles, related)
        read = [name for name in (profiles.id, profiles.deleted_at, profiles.deleted) if name is not None]
        self._read_only = [(self._profiles, name) for name in read]
        for part, other in zip(self._related, related, strict=True):
            self._read_only += [(part, name) for name in {other.profile_id, *(name for name, _ in part.key)}]
        self._read_only += [(part, column) for part, column, _ in self._updated_at]

    def missing_rights(self) -> list[str]:
        """What the role may not do and has to, in words."""
        written = [(part, column.name) for part in self._parts for column in part.columns]
        written.append((self._profiles, self._flag_name))
        wanted = [(part, name, right) for part, name in written for right in ("SELECT", "UPDATE")]
        wanted += [(part, name, "SELECT") for part, name in self._read_only]
        return [
            f"{right} {self._quoted(part)}.{name}"
            for part, name, right in wanted
            if not self._ask("SELECT has_column_privilege(%s, %s, %s)", part, name, right)[0][0]
        ]

    def flag_type(self) -> str:
        """The flag's type."""
        ((type_,),) = self._ask(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
            self._profiles,
            self._flag_name,
        )
        return str(type_)

    def unindexed(self) -> list[str]:
        """Columns by which rows are looked up and that no index begins with."""
        looked_up_by = [(part, part.owner_name) for part in self._parts]
        looked_up_by += [(part, column) for part, column, _ in self._updated_at]
        return [
            f"{self._quoted(part)}.{column}"
            for part, column in looked_up_by
            if not self._ask(
                "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a"
                " ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
                " WHERE i.indrelid = %s::regclass AND i.indisvalid AND i.indpred IS NULL AND a.attname = %s)",
                part,
                column,
            )[0][0]
        ]

    def triggers(self) -> list[str]:
        """Triggers that our updates fire."""
        found = []
        for part in self._parts:
            written = [column.name for column in part.columns]
            written += [self._flag_name] if part is self._profiles else []
            rows = self._ask(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal"
                " AND tgenabled IN ('O', 'A') AND tgtype & 16 <> 0"  # 16: on UPDATE
                " AND (cardinality(tgattr::int2[]) = 0 OR EXISTS (SELECT FROM pg_attribute"
                " WHERE attrelid = tgrelid AND attnum = ANY(tgattr) AND attname = ANY(%s))) ORDER BY tgname",
                part,
                written,
            )
            found += [f"{name} on {self._quoted(part)}" for (name,) in rows]
        return found

    def takes_writes(self) -> bool:
        """Whether this is no standby, and transactions are not read-only by default."""
        return takes_writes(self._connection)

    @property
    def _parts(self) -> list[Table]:
        return [self._profiles, *self._related]

    def _ask(self, query: str, part: Table, *parameters: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401 - as Postgres has it
        with translated("database"):
            return self._connection.execute(query.encode(), [self._quoted(part), *parameters]).fetchall()

    def _quoted(self, part: Table) -> str:
        return part.name.as_string(self._connection)
