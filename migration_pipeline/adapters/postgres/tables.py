"""The app's tables as configured, with what the catalogue says of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from psycopg import sql

from migration_pipeline.adapters.postgres import arrays
from migration_pipeline.adapters.postgres.catalogue import TableFacts
from migration_pipeline.adapters.postgres.connection import table
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.texts import WHOLE, Form, Text
from migration_pipeline.core.values import Replace, edited, replace_in, replace_in_json, texts_in, texts_in_json

ID_TYPES = {
    "smallint": "bigint",
    "integer": "bigint",
    "bigint": "bigint",
    "uuid": "uuid",
    "text": "text",
    "character varying": "text",
}
"""Type of an id column → the type that parameters are cast to."""


class Kind(Enum):
    """How a column's values are looked at; each comes as the text that Postgres has for it."""

    JSON = ("json", "jsonb")
    TEXT = ("text", "character varying")
    TEXTS = ("text[]", "character varying[]")
    JSONS = ("json[]", "jsonb[]")


KINDS = {type_: kind for kind in Kind for type_ in kind.value}


class Column(NamedTuple):
    """A column that holds URLs."""

    name: str
    cast: str
    kind: Kind
    place: str = ""
    form: Form = WHOLE

    def selected(self) -> sql.Composable:
        """Its expression in a SELECT: text."""
        return sql.SQL("{}::text").format(sql.Identifier(self.name))

    def assigned(self) -> sql.Composed:
        """Its part of an UPDATE's SET, with a placeholder for the text."""
        return sql.SQL("{} = %s::{}").format(sql.Identifier(self.name), type_name(self.cast))

    def octets(self) -> sql.Composed:
        """How many bytes its value holds, as an expression that does not write it out."""
        # For text Postgres knows it without reading the value. To write JSON out as text takes twice the time of the
        # whole pass; as an array's element it is only decompressed. pg_column_size of the column itself would tell of
        # the compressed form, in which a long value is smaller than a shorter one that is not compressed.
        name = sql.Identifier(self.name)
        if self.kind is Kind.JSON:
            return sql.SQL(
                "CASE WHEN {c} IS NULL THEN 0 ELSE pg_column_size(ARRAY[{c}::{type}]) - {header} END"
            ).format(c=name, type=type_name(self.cast), header=sql.Literal(_ARRAY_HEADER))
        return sql.SQL("coalesce(octet_length({}::text), 0)").format(name)

    def strings(self, value: str | None) -> Iterator[Text]:
        """Every string of a value that could name a file."""
        if value is None:
            return iter(())
        match self.kind:
            case Kind.JSON:
                return texts_in_json(value, self.place, self.form)
            case Kind.TEXT:
                return texts_in(value, self.place, self.form)
            case Kind.TEXTS:
                return (Text(element, self.place, self.form) for element in arrays.elements(value))
            case Kind.JSONS:
                elements = arrays.elements(value)
                return (text for element in elements for text in texts_in_json(element, self.place, self.form))

    def replaced(self, value: str | None, replace: Replace) -> tuple[str | None, int]:
        """The value with some of its strings replaced, and how many."""
        if value is None:
            return None, 0
        match self.kind:
            case Kind.JSON:
                return replace_in_json(value, replace, self.place, self.form)
            case Kind.TEXT:
                return replace_in(value, replace, self.place, self.form)
            case Kind.TEXTS:
                edits = iter(replace(list(self.strings(value))))
                return arrays.replaced(value, lambda element: (edited(element, done := next(edits)), len(done)))
            case Kind.JSONS:
                return arrays.replaced(value, lambda element: replace_in_json(element, replace, self.place, self.form))


_ARRAY_HEADER = 24  # bytes


def type_name(name: str) -> sql.SQL:
    """A type as the catalogue writes it, quoted where it has to be; the driver takes a % for a placeholder."""
    return sql.SQL(name.replace("%", "%%"))


@dataclass(frozen=True, slots=True)
class ProfileTable:
    """Names in the profiles table.

    `deleted_at` is `None` where the app keeps no time of it, `updated_at` where it keeps no time of the last write.
    `deleted` is a boolean column, or one that says it by one of `deleted_values`.
    """

    name: str
    id: str
    columns: Sequence[str]
    migrated_at: str
    deleted_at: str | None = None
    updated_at: str | None = None
    deleted: str | None = None
    deleted_values: Sequence[str] = ()
    forms: Mapping[str, Form] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RelatedTable:
    """Names in a table whose rows belong to profiles.

    `id` is `None` where the primary key tells its rows apart.
    """

    name: str
    profile_id: str
    columns: Sequence[str]
    id: str | None = None
    updated_at: str | None = None
    forms: Mapping[str, Form] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """A table that was looked up.

    Attributes:
        key: columns that tell any two of its rows apart, and the types that their text is cast to.
        unowned: says of a row that it belongs to no profile; `None` where that cannot be.
        watched: triggers or rules may change or refuse what is written.
        secured: row-level security may keep a row that is seen from being locked.
    """

    name: sql.Composed
    shown: str
    key: Sequence[tuple[str, str]]
    owner_name: str
    owner: sql.Identifier
    owner_cast: sql.SQL
    columns: Sequence[Column]
    unowned: sql.Composable | None = None
    watched: bool = False
    secured: bool = False

    def identity(self) -> sql.Composed:
        """Owner and key."""
        return sql.SQL(", ").join(
            [self.owner, *(sql.SQL("{}::text").format(sql.Identifier(name)) for name, _ in self.key)]
        )

    def selected(self) -> sql.Composed:
        """Owner, key and columns."""
        return sql.SQL(", ").join([self.identity(), *(column.selected() for column in self.columns)])

    def in_order(self) -> sql.Composed:
        """The key's columns, in which order rows are locked."""
        return sql.SQL(", ").join(sql.SQL("{}.{}").format(self.name, sql.Identifier(name)) for name, _ in self.key)

    def is_row(self) -> sql.Composed:
        """Says of a row that it is a certain one: placeholders for the key, and for its owner."""
        parts = [
            sql.SQL("{} = %s::{}").format(sql.Identifier(name), type_name(cast))
            for name, cast in (*self.key, (self.owner_name, self.owner_cast.as_string(None)))
        ]
        return sql.SQL(" AND ").join(parts)


def looked_up(facts: TableFacts, key: Sequence[str], owner: str, columns: Sequence[str]) -> Table:
    """A table of which these columns are used; the checks have passed."""
    return Table(
        name=table(facts.name),
        shown=facts.name,
        key=[(name, facts.columns[name].cast) for name in key],
        owner_name=owner,
        owner=sql.Identifier(owner),
        owner_cast=sql.SQL(ID_TYPES[facts.columns[owner].type]),
        columns=[Column(name, facts.columns[name].cast, KINDS[facts.columns[name].type]) for name in columns],
        watched=facts.watched,
        secured=facts.secured,
    )


def formed(table_: Table, configured: ProfileTable | RelatedTable, setting: str) -> Table:
    """The table with how its columns are read.

    Raises:
        Fatal: a JSON column has a `base`: which of its strings are names, nobody can say.
    """
    forms = configured.forms
    for column in table_.columns:
        if column.kind in (Kind.JSON, Kind.JSONS) and forms.get(column.name, WHOLE).base is not None:
            raise Fatal(
                f"column {column.name!r} of {configured.name!r} holds JSON, and has a base.",
                setting=f"{setting}.columns",
                remedy="Names without a URL are taken from text and text[] columns.",
            )
    columns = [
        column._replace(place=f"{configured.name}.{column.name}", form=forms.get(column.name, WHOLE))
        for column in table_.columns
    ]
    return replace(table_, columns=columns)


def holds(part: Table, *, any_case: bool) -> sql.Composed:
    """Says of a row that one of `texts` may stand in its columns, escaped in some way or not."""
    texts = sql.SQL("concat_ws(' ', {})").format(sql.SQL(", ").join(column.selected() for column in part.columns))
    like = sql.SQL("ILIKE" if any_case else "LIKE")
    # With any case it is hosts that are looked for: of a column of bare names, any name may be meant.
    bare = [sql.SQL("{} !~ '//'").format(c.selected()) for c in part.columns if any_case and c.form.base is not None]
    either = [sql.SQL("{} {} ANY(%(texts)s)").format(texts, like), sql.SQL("{} ~* %(hidden)s").format(texts), *bare]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(either))


def unowned(related: TableFacts, owner: str, profiles: TableFacts, id_: str) -> sql.Composable | None:
    """Says of a related row that no profile has its owner's id; `None` where a foreign key sees to it."""
    column = sql.SQL("{}.{}").format(table(related.name), sql.Identifier(owner))
    if (profiles.oid, id_) in related.owned_by.get(owner, ()):
        return None if related.columns[owner].not_null else sql.SQL("{} IS NULL").format(column)
    return sql.SQL("NOT EXISTS (SELECT FROM {profiles} AS its_owner WHERE its_owner.{id} = {column})").format(
        profiles=table(profiles.name), id=sql.Identifier(id_), column=column
    )


def is_deleted(profiles: ProfileTable) -> sql.Composable:
    """Says of a profile that it is soft-deleted. One that is to be deleted at infinity never is."""
    if profiles.deleted_at is not None:
        return sql.SQL("coalesce({} < 'infinity', false)").format(sql.Identifier(profiles.deleted_at))
    if profiles.deleted is None:
        return sql.SQL("false")
    column = sql.Identifier(profiles.deleted)
    if not profiles.deleted_values:
        return sql.SQL("coalesce({}, false)").format(column)
    words = sql.SQL(", ").join(_literal(word) for word in profiles.deleted_values)
    return sql.SQL("coalesce({}::text IN ({}), false)").format(column, words)


def _literal(text: str) -> sql.SQL:
    """A constant; the driver would take a % in it for a placeholder."""
    return sql.SQL(sql.Literal(text).as_string(None).replace("%", "%%"))


def written_since(column: str, type_: str) -> sql.Composed:
    """Says of a row that it was written since a moment, a placeholder, by a column with the time of its last write.

    A time without a zone is of one that nobody knows. The farthest west of UTC is twelve hours behind: rows of half a
    day more are looked at, and none too few.
    """
    moment = "%s" if type_ == WITH_ZONE else "(%s AT TIME ZONE 'UTC') - interval '12 hours'"
    return sql.SQL("{} >= {}").format(sql.Identifier(column), sql.SQL(moment))


WITH_ZONE, WITHOUT_ZONE = "timestamp with time zone", "timestamp without time zone"
