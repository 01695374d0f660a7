"""What `doctor` asks of the ledger's database."""

from migration_pipeline.adapters.ledger.overview import Query


def version(query: Query) -> int | None:
    """Of the ledger's tables; `None` where there is no ledger yet."""
    rows = query("SELECT max(version) FROM {s}.schema_versions")
    return rows[0][0] if rows else None


def missing_rights(query: Query, schema: str) -> list[str]:
    """What the role may not do to the ledger's tables, in words."""
    rows = query(
        "SELECT right_, relname FROM pg_class, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS right_"
        " WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r' AND NOT has_table_privilege(oid, right_)"
        " ORDER BY relname, right_",
        [f'"{schema}"'],
    )
    return [f"{right} {name}" for right, name in rows]
