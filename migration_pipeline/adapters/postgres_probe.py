"""What `doctor` asks of the app's Postgres database; nothing is written."""

from migration_pipeline.adapters.postgres import translated
from migration_pipeline.adapters.postgres_index import PostgresIndex


class PostgresProbe(PostgresIndex):
    """Looks at rights, indexes and whatever else could surprise a migration."""

    def missing_rights(self) -> list[str]:
        """What the role may not do and has to, in words."""
        wanted = [(part.name, column.name) for part in (self._profiles, *self._related) for column in part.columns]
        wanted.append((self._profiles.name, self._flag_name))
        missing = []
        with translated("database"), self._connection.cursor() as cursor:
            for name, column in wanted:
                quoted = name.as_string(self._connection)
                for right in ("SELECT", "UPDATE"):
                    cursor.execute("SELECT has_column_privilege(%s, %s, %s)", [quoted, column, right])
                    if cursor.fetchone() != (True,):
                        missing.append(f"{right} {quoted}.{column}")
        return missing

    def unindexed(self) -> list[str]:
        """Columns by which rows are looked up and that no index begins with."""
        missing = []
        with translated("database"), self._connection.cursor() as cursor:
            for part in (self._profiles, *self._related):
                quoted, owner = part.name.as_string(self._connection), part.owner_name
                cursor.execute(
                    "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a"
                    " ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
                    " WHERE i.indrelid = %s::regclass AND i.indisvalid AND i.indpred IS NULL AND a.attname = %s)",
                    [quoted, owner],
                )
                if cursor.fetchone() != (True,):
                    missing.append(f"{quoted}.{owner}")
        return missing
