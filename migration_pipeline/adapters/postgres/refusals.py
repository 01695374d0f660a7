"""Rows that the app's database refuses to have written: why, in our words.

A driver's message may hold values, of columns too that were never configured, and a trigger's may hold anything. None
of it is passed on; what is said here is made of the error's code and of names in the catalogue.
"""

from collections.abc import Sequence

import psycopg

from migration_pipeline.adapters.postgres.tables import Table

_EVERYBODYS = ("08", "25", "28", "3D", "40", "53", "57", "58", "F0", "XX")
"""PostgreSQL documentation, "Error Codes": classes that say nothing of a row."""
_TRANSIENT = ("08", "40", "53", "57")
"""Of these, what stays true where it happens within a trigger."""
_LOCKED, _MAY_NOT = "55P03", "42501"

CHANGED_BACK = "a trigger, a rule or row-level security of table {table} keeps the new value from being stored"
UNLOCKABLE = "row-level security of table {table} lets this role see the row, and not write it"
OTHER_ROWS = "the key of its row in table {table} is not the row's alone, or is NULL"


class RowRefused(Exception):  # noqa: N818 - an answer, not a failure
    """What was written is not what is stored, or not stored in the row that was meant; to be rolled back."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def why_refused(error: psycopg.Error | RowRefused, part: Table, columns: Sequence[str] = ()) -> str | None:
    """Why a row cannot be written, in words that hold no value; `None` where that is not what the error says.

    Args:
        error: of a statement that writes.
        part: the table.
        columns: that were to be written.
    """
    if isinstance(error, RowRefused):
        return error.why
    code, in_function = error.sqlstate or "", error.diag.context is not None
    if not code or code == _LOCKED or code.startswith(_TRANSIENT if in_function else _EVERYBODYS):
        return None
    if not in_function and code.startswith("42") and not (code == _MAY_NOT and part.watched):
        return None
    return f"{_words(error, code, part, columns, in_function=in_function)} (SQLSTATE {code})"


def _words(error: psycopg.Error, code: str, part: Table, columns: Sequence[str], *, in_function: bool) -> str:
    table = f"table {part.shown}"
    if in_function or code.startswith("P0"):
        return f"a trigger of {table} refuses the new value"
    said = {
        "22001": f"the new URL is too long for {' or '.join(columns) or 'a column'} of {table}",
        "23505": f"another row of {table} has the new value, which has to be unique",
        "54000": f"the new value of {table} is larger than Postgres takes, in an index for example",
        _MAY_NOT: f"row-level security of {table} refuses the new value",
    }.get(code)
    if said is None:
        said = f"{'a constraint' if code.startswith('23') else 'the database'} of {table} refuses the new value"
    return said + (f" ({error.diag.constraint_name})" if error.diag.constraint_name else "")
