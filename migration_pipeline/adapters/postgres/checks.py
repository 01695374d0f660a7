"""Settings are looked up, not believed: what is asked of the app's tables before a plan, a run or any other act.

Each check says what is wrong in the operator's words, names the setting, and says what to do. There is one table of
them, so that planning, runs, sweeps and `doctor` look at the same.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from psycopg import sql

from migration_pipeline.adapters.postgres.catalogue import TableFacts, facts
from migration_pipeline.adapters.postgres.connection import Connection, connect, table, translated
from migration_pipeline.adapters.postgres.tables import (
    ID_TYPES,
    KINDS,
    WITH_ZONE,
    WITHOUT_ZONE,
    ProfileTable,
    RelatedTable,
    is_deleted,
)
from migration_pipeline.core.errors import Fatal, Unreachable

_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_TIMES = (WITH_ZONE, WITHOUT_ZONE)


@dataclass(frozen=True, slots=True)
class Part:
    """A configured table, and what the catalogue says of it.

    Attributes:
        owner: the column that holds the profile's id.
        id: the column that settings say tells its rows apart, if they do.
        columns: that are rewritten.
        read: further columns that are read, by the setting that names them.
        deleted: says of a profile that it is soft-deleted.
        words: by which its column `deleted` says so.
    """

    facts: TableFacts
    owner: str
    id: str | None
    columns: Sequence[str]
    read: Sequence[tuple[str, str]]
    deleted: sql.Composable = field(default_factory=lambda: sql.SQL("false"))
    words: Sequence[str] = ()

    @property
    def setting(self) -> str:
        """The setting that describes the table."""
        return self.facts.setting

    def refused(self, what: str, remedy: str, key: str = "") -> Fatal:
        """A refusal that names the table."""
        setting = f"{self.setting}.{key}" if key else self.setting
        return Fatal(f"table {self.facts.name!r} {what}", setting=setting, remedy=remedy)

    def key(self) -> Sequence[str]:
        """Columns that tell any two rows apart: the primary key, else what is unique; empty where nothing is known."""
        named = [{self.id}, {self.owner, self.id}] if self.id is not None else []
        if self.id is not None and not any(columns <= set(names) for columns in self.facts.unique for names in named):
            return ()
        if self.facts.primary:
            return self.facts.primary
        not_null = {name for name, column in self.facts.columns.items() if column.not_null}
        fit = [unique for unique in self.facts.unique if unique <= not_null or unique in named]
        return sorted(fit[0]) if fit else ()


Check = Callable[[Part, Part], Iterator[Fatal]]
"""Looks at a table, beside that of the profiles."""


def parts(connection: Connection, profiles: ProfileTable, related: Sequence[RelatedTable]) -> list[Part]:
    """The tables of the settings, that of the profiles first.

    Raises:
        Fatal: one of them is not there.
    """
    optional = {name: getattr(profiles, name) for name in ("migrated_at", "deleted_at", "deleted", "updated_at")}
    found = [
        Part(
            facts(connection, profiles.name, "database.profiles"),
            profiles.id,
            profiles.id,
            profiles.columns,
            [("id", profiles.id), *((name, column) for name, column in optional.items() if column is not None)],
            is_deleted(profiles),
            profiles.deleted_values,
        )
    ]
    for other in related:
        read = [("profile_id", other.profile_id), ("id", other.id), ("updated_at", other.updated_at)]
        found.append(
            Part(
                facts(connection, other.name, "database.related"),
                other.profile_id,
                other.id,
                other.columns,
                [(name, column) for name, column in read if column is not None],
            )
        )
    return found


def looked_up(url: str, profiles: ProfileTable, related: Sequence[RelatedTable]) -> list[Fatal]:
    """Everything that is wrong with the tables of a database.

    Raises:
        Fatal: it cannot be reached.
    """
    with closing(connect(url, setting="DATABASE_URL")) as connection:
        try:
            return list(refusals(connection, parts(connection, profiles, related), writes=False))
        except Fatal as error:  # a table that is not there
            return [error]


def refusals(connection: Connection, found: Sequence[Part], *, writes: bool) -> Iterator[Fatal]:
    """Everything that is wrong with the tables; what is said first may be why the rest is.

    Args:
        connection: to the app's database.
        found: its tables.
        writes: they are to be written; a plan only reads them.
    """
    if writes and not takes_writes(connection):
        # Not for good: after a failover, or where a full disk makes a managed server read-only for a while.
        raise Unreachable(
            "takes no writes: it is a standby, or transactions are read-only by default.",
            setting="DATABASE_URL",
            remedy="Name the primary, and a role whose default_transaction_read_only is off.",
        )
    wrong = False
    for part in found:
        missing = list(_columns_are_there(part, found[0]))
        for refusal in missing or (refusal for check in CHECKS for refusal in check(part, found[0])):
            wrong = True
            yield refusal
    if not wrong:
        yield from _rows_are_as_said(connection, found[0])


def takes_writes(connection: Connection) -> bool:
    """Whether this is no standby, and transactions are not read-only by default."""
    query = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
    return connection.execute(query).fetchone() == (False,)


def _rows_are_as_said(connection: Connection, profiles: Part) -> Iterator[Fatal]:
    """What no catalogue says; each look ends at the first row that answers it."""
    name = table(profiles.facts.name)
    read = [column for key, column in profiles.read if key in ("id", "deleted_at", "deleted")]
    may = "SELECT bool_and(has_column_privilege(%s::oid, name, 'SELECT')) FROM unnest(%s::text[]) AS name"
    if connection.execute(may, [profiles.facts.oid, read]).fetchone() != (True,):
        return  # a right that is missing is told where it is asked for, and by the first that reads
    nobody = sql.SQL("SELECT EXISTS (SELECT FROM {t}) AND NOT EXISTS (SELECT FROM {t} WHERE NOT {deleted})")
    ids = sql.SQL("SELECT EXISTS (SELECT FROM {t} WHERE {id} IS NULL)")
    with translated(profiles.setting):
        if connection.execute(ids.format(t=name, id=sql.Identifier(profiles.owner))).fetchone() == (True,):
            yield profiles.refused(f"has rows without {profiles.owner!r}.", "Give each an id, and SET NOT NULL.", "id")
        # With a parameter, so that the driver takes %% for %.
        query = nobody.format(t=name, deleted=profiles.deleted) + sql.SQL(" AND %s")
        if connection.execute(query, [True]).fetchone() == (True,):
            key = next((key for key, _ in profiles.read if key in ("deleted_at", "deleted")), "")
            yield profiles.refused(
                "has no profile that is not deleted, by this setting: nothing would move.",
                "Name the column that says which are: deleted_at is NULL or infinity for the others, deleted is false, "
                "or not one of deleted_values.",
                key,
            )


def _columns_are_there(part: Part, _: Part) -> Iterator[Fatal]:
    for key, column in [*part.read, *(("columns", name) for name in part.columns)]:
        if column not in part.facts.columns:
            yield part.refused(f"has no column {column!r}.", "Check the name.", key)


def _is_a_table(part: Part, _: Part) -> Iterator[Fatal]:
    kind = _KINDS.get(part.facts.kind)
    if kind is not None:
        yield part.refused(f"is {kind}: its rows cannot be locked and written one by one.", "Name the table below it.")
    if part.facts.children:
        yield part.refused(
            f"has rows in tables that inherit from it ({', '.join(part.facts.children)}), over which no index is"
            " unique.",
            "Name each of them, or attach them as partitions.",
        )
    if part.facts.update_rules:
        yield part.refused(
            f"has rules for updates ({', '.join(part.facts.update_rules)}), which write something else instead.",
            "Make triggers of them, or name the table that they write.",
        )


def _columns_can_be_rewritten(part: Part, _: Part) -> Iterator[Fatal]:
    for name in part.columns:
        column = part.facts.columns[name]
        if column.type not in KINDS:
            yield part.refused(
                f"has column {name!r} of type {column.type}.",
                "URLs can be rewritten in json, jsonb, text and varchar columns, arrays of these, and domains.",
                "columns",
            )
        elif column.generated:
            yield part.refused(
                f"computes its column {name!r} from other columns, so nobody can write it.",
                "Name the columns that it is computed from.",
                "columns",
            )


def _rows_are_identified(part: Part, profiles: Part) -> Iterator[Fatal]:
    unique = part.facts.unique
    if part is profiles:
        if not any(columns <= {part.id} for columns in unique):
            yield part.refused(
                f"may hold rows with the same {part.id!r}: no unique index is over this column alone{_primary(part)}.",
                "Name a column that is unique by itself, or CREATE UNIQUE INDEX CONCURRENTLY over it.",
                "id",
            )
    elif not part.key():
        if part.id is not None:
            yield part.refused(
                f"may hold rows with the same {part.id!r}: no unique index is over it, or over {part.owner!r} and it"
                f"{_primary(part)}.",
                "Leave id out, and the primary key is used." if part.facts.primary else _ADD_KEY,
                "id",
            )
        else:
            yield part.refused("has no primary key, so its rows cannot be told apart.", _ADD_KEY)


_ADD_KEY = "Add a primary key, or a unique index over columns that are NOT NULL."


def _primary(part: Part) -> str:
    return f" (its primary key is {', '.join(part.facts.primary)})" if part.facts.primary else ""


def _ids_are_of_one_type(part: Part, profiles: Part) -> Iterator[Fatal]:
    column, wanted = part.facts.columns[part.owner], profiles.facts.columns[profiles.owner]
    key = "id" if part is profiles else "profile_id"
    if column.type not in ID_TYPES:
        yield part.refused(
            f"has column {part.owner!r} of type {column.type}.", "Ids can be integers, uuids or text.", key
        )
    elif ID_TYPES.get(wanted.type, "") != ID_TYPES[column.type] and wanted.type in ID_TYPES:
        yield part.refused(
            f"has column {part.owner!r} of type {column.type}, and the profiles' {profiles.owner!r} is of type"
            f" {wanted.type}.",
            "Give both the same type: what is compared as text may be spelled in several ways.",
            key,
        )
    elif not column.deterministic:
        yield part.refused(
            f"compares its column {part.owner!r} by a collation under which different ids are equal.",
            "Give it a deterministic collation.",
            key,
        )


def _flag_can_be_set_and_cleared(part: Part, profiles: Part) -> Iterator[Fatal]:
    for key, name in part.read if part is profiles else ():
        column = part.facts.columns[name]
        if key != "migrated_at":
            continue
        if column.type not in _TIMES or column.generated:
            shown = "computed by the database" if column.generated else f"of type {column.type}"
            yield part.refused(f"has its flag {name!r} {shown}.", "Make it a nullable timestamptz.", key)
        elif column.not_null:
            yield part.refused(
                f"has its flag {name!r} NOT NULL, so it cannot be cleared.", "ALTER COLUMN … DROP NOT NULL.", key
            )


def _updates_are_published(part: Part, _: Part) -> Iterator[Fatal]:
    if part.facts.unidentified:
        yield part.refused(
            f"is published for replication without a replica identity ({', '.join(part.facts.unidentified)}), so"
            " Postgres refuses every update.",
            "ALTER TABLE … REPLICA IDENTITY FULL, or give it a primary key.",
        )


def _all_rows_are_seen(part: Part, _: Part) -> Iterator[Fatal]:
    if part.facts.hides:
        yield part.refused(
            "may have rows that row-level security hides from this role: profiles would be flagged that hold more.",
            "ALTER ROLE … BYPASSRLS, or a policy FOR SELECT USING (true) for it.",
        )


def _deleted_says_so(part: Part, profiles: Part) -> Iterator[Fatal]:
    named = dict(part.read) if part is profiles else {}
    if "deleted_at" in named and "deleted" in named:
        yield part.refused("has both deleted_at and deleted set.", "Set the one that the app goes by.", "deleted")
    elif "deleted_at" in named:
        column = part.facts.columns[named["deleted_at"]]
        if column.type not in (*_TIMES, "date"):
            remedy = (
                f'Set deleted = "{column.name}" instead, which is true for deleted ones.'
                if column.type == "boolean"
                else f'Set deleted = "{column.name}", and deleted_values to what it says of deleted ones.'
            )
            yield part.refused(
                f"has column {column.name!r} of type {column.type}, which is no time.", remedy, "deleted_at"
            )
    elif "deleted" in named:
        column = part.facts.columns[named["deleted"]]
        if (column.type == "boolean") is bool(part.words):
            yield part.refused(
                f"has column {column.name!r} of type {column.type}.",
                "Leave deleted_values out."
                if part.words
                else "Set deleted_values to what it says of deleted profiles.",
                "deleted_values",
            )
    elif part.words:
        yield part.refused("has deleted_values, and no column for them.", "Set deleted to its name.", "deleted")


def _writes_are_told(part: Part, _: Part) -> Iterator[Fatal]:
    name = dict(part.read).get("updated_at")
    if name is not None and part.facts.columns[name].type not in _TIMES:
        yield part.refused(
            f"has column {name!r} of type {part.facts.columns[name].type}, by which sweeps would see nothing.",
            "Name a timestamptz column that every write changes, or leave updated_at out.",
            "updated_at",
        )


CHECKS: Sequence[Check] = (
    _is_a_table,
    _all_rows_are_seen,
    _rows_are_identified,
    _ids_are_of_one_type,
    _columns_can_be_rewritten,
    _flag_can_be_set_and_cleared,
    _deleted_says_so,
    _writes_are_told,
    _updates_are_published,
)
