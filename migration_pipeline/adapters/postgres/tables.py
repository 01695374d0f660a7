"""The app's tables as configured, with their columns' types looked up in the database."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from psycopg import sql

from migration_pipeline.adapters.postgres.connection import Connection, table, translated
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.values import Replace, replace_in, replace_in_json, strings_in, strings_in_json

_ID_TYPES = {
    "smallint": "bigint",
    "integer": "bigint",
    "bigint": "bigint",
    "uuid": "uuid",
    "text": "text",
    "character varying": "text",
}
"""Type of an id column → the type that parameters are cast to."""


class Kind(Enum):
    """How a column's values are looked at: as JSON text, or as they are."""

    JSON = ("json", "jsonb")
    VALUE = ("text", "character varying", "text[]", "character varying[]")


class Column(NamedTuple):
    """A column that holds URLs."""

    name: str
    type: str
    kind: Kind

    def selected(self) -> sql.Composable:
        """Its expression in a SELECT."""
        name = sql.Identifier(self.name)
        return sql.SQL("{}::text").format(name) if self.kind is Kind.JSON else name

    def strings(self, value: Any) -> Iterator[str]:  # noqa: ANN401 - as the column's type has it
        return strings_in_json(value) if self.kind is Kind.JSON and value is not None else strings_in(value)

    def replaced(self, value: Any, replace: Replace) -> tuple[Any, int]:  # noqa: ANN401 - as above
        if self.kind is Kind.JSON and value is not None:
            return replace_in_json(value, replace)
        return replace_in(value, replace)


@dataclass(frozen=True, slots=True)
class ProfileTable:
    """Names in the profiles table.

    `deleted_at` is `None` where the app deletes rows for good, `updated_at` where it keeps no time of the last write.
    """

    name: str
    id: str
    columns: Sequence[str]
    migrated_at: str
    deleted_at: str | None = None
    updated_at: str | None = None


@dataclass(frozen=True, slots=True)
class RelatedTable:
    """Names in a table whose rows belong to profiles."""

    name: str
    id: str
    profile_id: str
    columns: Sequence[str]
    updated_at: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its columns' types looked up."""

    name: sql.Composed
    id: sql.Identifier
    id_cast: sql.SQL
    owner_name: str
    owner: sql.Identifier
    owner_cast: sql.SQL
    columns: Sequence[Column]

    def selected(self) -> sql.Composed:
        return sql.SQL(", ").join([self.owner, self.id, *(column.selected() for column in self.columns)])


def looked_up(name: str, id_: str, owner: str, columns: Sequence[str], types: dict[str, str], setting: str) -> Table:
    """A table of which these columns are used.

    Raises:
        Fatal: a column is missing, or of a type that cannot be used so; naming `setting`.
    """
    for column in (id_, owner, *columns):
        if column not in types:
            raise no_column(name, column, setting)
    kinds = {type_: kind for kind in Kind for type_ in kind.value}
    for column in columns:
        if types[column] not in kinds:
            raise Fatal(
                f"column {column!r} of {name!r} is of type {types[column]}.",
                setting=f"{setting}.columns",
                remedy="URLs can be rewritten in json, jsonb, text and text[] columns.",
            )
    for column in (id_, owner):
        if types[column] not in _ID_TYPES:
            raise Fatal(
                f"column {column!r} of {name!r} is of type {types[column]}.",
                setting=setting,
                remedy="Ids can be integers, uuids or text.",
            )
    return Table(
        name=table(name),
        id=sql.Identifier(id_),
        id_cast=sql.SQL(_ID_TYPES[types[id_]]),
        owner_name=owner,
        owner=sql.Identifier(owner),
        owner_cast=sql.SQL(_ID_TYPES[types[owner]]),
        columns=[Column(column, types[column], kinds[types[column]]) for column in columns],
    )


def no_column(table_name: str, column: str, setting: str) -> Fatal:
    """The error of a configured column that is not there."""
    return Fatal(f"table {table_name!r} has no column {column!r}.", setting=setting, remedy="Check the name.")


def column_types(connection: Connection, name: str, setting: str) -> dict[str, str]:
    """Column → type of a table.

    Raises:
        Fatal: there is no such table; naming `setting`.
    """
    quoted = table(name).as_string(connection)
    with translated(setting), connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [quoted],
        )
        types: dict[str, str] = dict(cursor.fetchall())
    if not types:
        raise Fatal(f"there is no table {name!r}.", setting=setting, remedy="Name one that DATABASE_URL's role sees.")
    return types
