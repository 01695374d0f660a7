"""What the database's catalogue says of a table: nothing that a setting claims of it is believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg import sql

from migration_pipeline.adapters.postgres.connection import Connection, table, translated
from migration_pipeline.core.errors import Fatal


class ColumnFacts(NamedTuple):
    """A column.

    Attributes:
        type: with domains resolved, also of an array's elements: `text` for a domain over text.
        cast: what a parameter is cast to, as SQL; a domain's own rules are looked at when the column is assigned.
        elements: the type of an array's elements, domains resolved; empty where it is no array.
        generated: computed by the database, so nobody can write it.
        collation: quoted; empty where the type has none.
        ordered_by_bytes: values compare as their UTF-8 bytes do.
        deterministic: only equal bytes are equal.
    """

    name: str
    type: str
    cast: str
    elements: str
    not_null: bool
    generated: bool
    collation: str
    ordered_by_bytes: bool
    deterministic: bool


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table.

    Attributes:
        kind: `pg_class.relkind`: `r` for a table, `p` for a partitioned one.
        primary: the primary key's columns, in its order; empty without one.
        unique: column sets over which an index that holds for every row lets no two rows be alike.
        owned_by: columns that a validated foreign key ties to another table's, by that table's `oid`.
        children: inherit from it, without being its partitions.
        secured: row-level security applies to this role.
        hides: row-level security may keep rows from being seen by this role.
        watched: triggers, rules, row-level security or late constraints may change or refuse what is written.
        unidentified: tables of it that are published with their updates and have no replica identity.
    """

    name: str
    setting: str
    oid: int
    kind: str
    columns: Mapping[str, ColumnFacts]
    primary: Sequence[str]
    unique: Sequence[frozenset[str]]
    owned_by: Mapping[str, frozenset[tuple[int, str]]]
    children: Sequence[str]
    secured: bool
    hides: bool
    watched: bool
    update_rules: Sequence[str]
    unidentified: Sequence[str]


def facts(connection: Connection, name: str, setting: str) -> TableFacts:
    """Look a table up.

    Raises:
        Fatal: there is no such table; naming `setting`.
    """
    quoted = table(name).as_string(connection)

    def ask(query: sql.SQL) -> list[tuple[Any, ...]]:
        return connection.execute(query, {"table": quoted}).fetchall()

    with translated(setting):
        columns = {row[0]: ColumnFacts(*row) for row in ask(_COLUMNS)}
        if not columns:
            raise Fatal(
                f"there is no table {name!r}.", setting=setting, remedy="Name one that DATABASE_URL's role sees."
            )
        ((oid, kind, secured, hides, watched),) = ask(_KIND)
        indexes = [(primary, list(names)) for primary, names in ask(_UNIQUE)]
        owners: dict[str, set[tuple[int, str]]] = {}
        for column, other, other_column in ask(_REFERENCES):
            owners.setdefault(column, set()).add((other, other_column))
        return TableFacts(
            name=name,
            setting=setting,
            oid=oid,
            kind=kind,
            columns=columns,
            primary=next((names for primary, names in indexes if primary), []),
            unique=[frozenset(names) for _, names in indexes],
            owned_by={column: frozenset(others) for column, others in owners.items()},
            children=[row[0] for row in ask(_CHILDREN)],
            secured=secured,
            hides=hides,
            watched=watched,
            update_rules=[row[0] for row in ask(_RULES)],
            unidentified=[row[0] for row in ask(_UNIDENTIFIED)],
        )


# A domain's base may be a domain again, or an array of domains. -1 has a type named without its length, and "bpchar"
# not be taken for character(1).
_COLUMNS = sql.SQL("""
    WITH RECURSIVE base (of, oid) AS (
        SELECT oid, oid FROM pg_type
        WHERE oid IN (SELECT atttypid FROM pg_attribute WHERE attrelid = to_regclass(%(table)s))
        UNION ALL SELECT b.of, t.typbasetype FROM base b JOIN pg_type t USING (oid) WHERE t.typtype = 'd'
    ), resolved AS (
        SELECT b.of, t.oid, CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END AS element
        FROM base b JOIN pg_type t USING (oid) WHERE t.typtype <> 'd'
    ), of_elements (of, oid) AS (
        SELECT of, element FROM resolved WHERE element <> 0
        UNION ALL SELECT e.of, t.typbasetype FROM of_elements e JOIN pg_type t USING (oid) WHERE t.typtype = 'd'
    )
    SELECT a.attname, CASE WHEN e.oid IS NULL THEN format_type(r.oid, -1) ELSE format_type(e.oid, -1) || '[]' END,
        format_type(r.oid, -1), coalesce(format_type(e.oid, -1), ''), a.attnotnull, a.attgenerated <> '',
        coalesce(quote_ident(cn.nspname) || '.' || quote_ident(c.collname), ''),
        a.attcollation = 0 OR c.collname IN ('C', 'POSIX', 'ucs_basic')
            OR (c.collprovider = 'd' AND (d.datcollate IN ('C', 'POSIX') OR to_jsonb(d) ->> 'datlocprovider' = 'b')),
        coalesce((to_jsonb(c) ->> 'collisdeterministic')::boolean, true)
    FROM pg_attribute a JOIN resolved r ON r.of = a.atttypid
    LEFT JOIN (SELECT of_elements.* FROM of_elements JOIN pg_type USING (oid) WHERE typtype <> 'd') e ON e.of = r.of
    LEFT JOIN pg_collation c ON c.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
    CROSS JOIN (SELECT * FROM pg_database WHERE datname = current_database()) d
    WHERE a.attrelid = to_regclass(%(table)s) AND a.attnum > 0 AND NOT a.attisdropped
""")
# tgtype & 16: on UPDATE. A late constraint speaks only at the transaction's end, unless it is asked before.
_KIND = sql.SQL("""
    SELECT c.oid::bigint, relkind::text, row_security_active(c.oid), row_security_active(c.oid)
        AND (NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polpermissive AND polcmd IN ('r', '*')
                AND pg_get_expr(polqual, polrelid) = 'true' AND (polroles = '{0}'
                    OR EXISTS (SELECT FROM unnest(polroles) AS r WHERE r <> 0 AND pg_has_role(r, 'USAGE'))))
            OR EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND NOT polpermissive AND polcmd IN ('r', '*'))),
        relrowsecurity OR relhasrules
        OR EXISTS (SELECT FROM pg_trigger t WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 16 <> 0
            AND (t.tgrelid = c.oid OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid))))
        OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.condeferrable)
    FROM pg_class c WHERE c.oid = to_regclass(%(table)s)
""")
_UNIQUE = sql.SQL("""
    SELECT bool_or(i.indisprimary), array_agg(a.attname::text ORDER BY k.n)
    FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = to_regclass(%(table)s) AND i.indisunique AND i.indisvalid AND NOT i.indisexclusion
        AND i.indpred IS NULL AND i.indexprs IS NULL AND k.n <= i.indnkeyatts
    GROUP BY i.indexrelid ORDER BY count(*), i.indexrelid
""")
_REFERENCES = sql.SQL("""
    SELECT a.attname, k.confrelid::bigint, b.attname FROM pg_constraint k
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
    JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1]
    WHERE k.conrelid = to_regclass(%(table)s) AND k.contype = 'f' AND k.convalidated AND cardinality(k.conkey) = 1
""")
_CHILDREN = sql.SQL("""
    SELECT c.oid::regclass::text FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
    WHERE h.inhparent = to_regclass(%(table)s) AND NOT c.relispartition ORDER BY 1
""")
# An update runs into these whichever row it is of. A view's own is of another kind, and refused before.
_RULES = sql.SQL("""
    SELECT rulename FROM pg_rewrite WHERE ev_class = to_regclass(%(table)s) AND ev_type = '2' AND ev_enabled <> 'D'
    ORDER BY 1
""")
# PostgreSQL documentation, "Logical Replication: Publication": without a replica identity, updates are refused.
_UNIDENTIFIED = sql.SQL("""
    WITH parts AS (SELECT to_regclass(%(table)s)::oid AS oid
        UNION SELECT relid FROM pg_partition_tree(to_regclass(%(table)s)))
    SELECT c.oid::regclass::text FROM parts JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND (c.relreplident = 'n'
        OR (c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))
        OR (c.relreplident = 'i' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)))
    AND EXISTS (SELECT FROM pg_publication_tables t JOIN pg_publication p USING (pubname)
        JOIN pg_namespace s ON s.nspname = t.schemaname
        JOIN pg_class o ON o.relnamespace = s.oid AND o.relname = t.tablename
        WHERE p.pubupdate AND (o.oid = c.oid OR o.oid IN (SELECT relid FROM pg_partition_ancestors(c.oid))))
    ORDER BY 1
""")
