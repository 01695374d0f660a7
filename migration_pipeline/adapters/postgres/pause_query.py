"""The app's own word on whether runs are to pause: a query of the operator's on its database."""

from typing import Any

import psycopg

from migration_pipeline.adapters.postgres.connection import Connection, connect, in_words
from migration_pipeline.core.errors import Fatal

SETTING = "control.pause_while"
_SECONDS = "2s"


class PauseQuery:
    """Asks each time that it is called; for one thread at a time. It reads only, and not longer than two seconds."""

    def __init__(self, url: str, query: str) -> None:
        self._url, self._query = url, query
        self._connection: Connection | None = None

    def __call__(self) -> str | None:
        """Why runs are to pause, in words; `None` to go on. A query that cannot be asked pauses, too."""
        try:
            return f"the app's database asks for it ({SETTING})" if self.ask() else None
        except Fatal as error:
            return str(error)

    def ask(self) -> bool:
        """What the query says.

        Raises:
            Fatal: it fails, or gives anything but one row with one boolean.
        """
        try:
            rows = self._rows()
        except psycopg.Error as error:
            self.close()
            raise Fatal(
                f"cannot be asked: {in_words(error)}.", setting=SETTING, remedy="Try the query on DATABASE_URL."
            ) from None
        if len(rows) != 1 or len(rows[0]) != 1 or not isinstance(rows[0][0], bool):
            raise Fatal(
                "gives no boolean, or more than one row with one.",
                setting=SETTING,
                remedy="Write SELECT EXISTS (…), or SELECT count(*) > 9 …",
            )
        found: bool = rows[0][0]
        return found

    def _rows(self) -> list[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url, setting="DATABASE_URL")
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('statement_timeout', %s, true), set_config('transaction_read_only', 'on', true)",
                [_SECONDS],
            )
            # In this form Postgres takes one statement alone: a second one could end the transaction, and both bounds.
            cursor.execute(self._query.encode(), binary=True)
            return cursor.fetchall()

    def close(self) -> None:
        """Close the connection; it is opened again where it is needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
