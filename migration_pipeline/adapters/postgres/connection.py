"""What both Postgres adapters share: connecting, and short transactions that are tried again."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from migration_pipeline.core.errors import Fatal, MigrationError, Transient, Unreachable

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]

_CONNECT_SECONDS = 10
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 30, 10, 3
_REFUSED = re.compile(r"authentication|does not exist|no pg_hba.conf entry|not permitted|translate host name|SSL")
"""What a server says that will say the same in a minute. While connecting, the driver hands on texts, and no codes."""
_TRIES = 8
# PostgreSQL documentation, "Serialization Failure Handling": these, and a lock not granted in time, may
# succeed when the transaction is run again.
RUN_AGAIN = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable, errors.QueryCanceled)


class StillBusy(Transient):
    """Somebody else kept the rows locked all the time."""


def connect(url: str, *, setting: str) -> Connection:
    """A connection in autocommit mode.

    A peer that vanished without a word is noticed within a minute, by us and by the server: else a lock would outlive
    its holder for hours, and a question wait as long for its answer.

    Raises:
        Unreachable: nobody answers, or the server takes nobody now.
        Fatal: it refuses us. Both name `setting`; the message holds host and database, never the password.
    """
    _refuse_ambiguous(url, setting)
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        # The driver's message would quote the text, password and all.
        raise Fatal("is not a valid Postgres URL.", setting=setting, remedy=_URL_FORM) from None
    where = f"{parts.get('host', 'local socket')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
    try:
        connection = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            application_name="migration-pipeline",
            # A pooler may give each transaction another session, which knows nothing of what was prepared in this one.
            prepare_threshold=None,
            keepalives_idle=_IDLE_SECONDS,
            keepalives_interval=_PROBE_SECONDS,
            keepalives_count=_PROBES,
            tcp_user_timeout=1000 * (_IDLE_SECONDS + _PROBES * _PROBE_SECONDS),
        )
        connection.execute(
            "SELECT set_config('tcp_keepalives_idle', %s, false), set_config('tcp_keepalives_interval', %s, false),"
            " set_config('tcp_keepalives_count', %s, false)",
            [str(_IDLE_SECONDS), str(_PROBE_SECONDS), str(_PROBES)],
        )
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        kind = Fatal if _REFUSED.search(reason) else Unreachable
        raise kind(f"cannot connect to {where}: {reason}", setting=setting, remedy=_URL_FORM) from None
    return connection


def _refuse_ambiguous(url: str, setting: str) -> None:
    """A password with an @ or a / in it would be taken for a host or a port, and be told as such.

    RFC 3986, section 3.2.1: in user and password, these are percent-encoded.
    """
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if (
        separator
        and scheme in ("postgresql", "postgres")
        and rest.count("@") > authority.count("@") * (authority.count("@") == 1)
    ):
        raise Fatal(
            "is not a Postgres URL that can be read in one way: an @ stands where it is not expected.",
            setting=setting,
            remedy="In user, password and options write @ as %40, / as %2F, ? as %3F and : as %3A.",
        )


def shares_sessions(one: Connection, other: Connection) -> bool:
    """Whether a pooler stands between, and gives sessions to single transactions: locks of sessions hold nothing there.

    It gives the session that was just used to whoever asks next, and takes it from whoever is between transactions.
    """
    for _ in range(_LOOKS):
        before = _backend(one)
        with other.transaction():
            if _backend(other) == before or _backend(one) != before:
                return True
    return False


_LOOKS = 3


def _backend(connection: Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None  # noqa: S101 - it always gives one
    return int(row[0])


_URL_FORM = "Give postgresql://user:password@host:port/database of a server that this machine reaches."


def table(name: str) -> sql.Composed:
    """A table's name, schema-qualified or not, quoted."""
    return sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))


def in_transaction(
    connection: Connection,
    work: Callable[[psycopg.Cursor[tuple[Any, ...]]], T],
    *,
    again: type[psycopg.Error] = errors.DeadlockDetected,
) -> tuple[T, int]:
    """Run `work` in a transaction, again after deadlocks, serialization failures, lock time-outs, and `again`.

    Returns:
        What `work` returned, and how many runs were thrown away.

    Raises:
        StillBusy: all tries met such errors.
        Transient: the connection broke.
    """
    for lost in range(_TRIES):
        try:
            with connection.transaction(), connection.cursor() as cursor:
                return work(cursor), lost
        except (*RUN_AGAIN, again) as error:
            if lost == _TRIES - 1:
                raise StillBusy(f"the database kept refusing: {type(error).__name__}") from None
            time.sleep(random.uniform(0, 0.05 * 2**lost))  # noqa: S311 - spreads load, guards nothing
    raise AssertionError("the loop returns or raises")


@contextmanager
def translated(setting: str, *, but: tuple[type[psycopg.Error], ...] = ()) -> Iterator[None]:
    """Turn the driver's errors into ours, all `but` those that the caller has a word for.

    Raises:
        Transient: the connection broke, or a statement ran out of time.
        Fatal: a table, column or right is missing, or a statement is refused; naming `setting`.
    """
    passed: tuple[type[Exception], ...] = (MigrationError, *but)
    try:
        yield
    except passed:
        raise
    except (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName) as error:
        raise Fatal(in_words(error), setting=setting, remedy="Check the names of tables and columns.") from None
    except errors.InsufficientPrivilege as error:
        raise Fatal(in_words(error), setting=setting, remedy="Grant the role what docs/settings.md lists.") from None
    except RUN_AGAIN as error:
        raise StillBusy(f"the database is busy: {in_words(error)}") from None
    except errors.ReadOnlySqlTransaction:
        # After a failover, and where a full disk makes a managed server read-only for a while.
        raise Transient("the database takes no writes now: it is read-only") from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Transient(f"the database went away: {in_words(error)}") from None
    except psycopg.Error as error:
        raise Fatal(
            f"the database refuses a statement: {in_words(error)}.",
            setting=setting,
            remedy="Its log has the statement; docs/settings.md says what is asked of tables and rights.",
        ) from None


_OWN_WORDS = ("08", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58")
"""Classes of errors whose messages name things of the database, and no value: all but what data or triggers cause."""


def in_words(error: psycopg.Error) -> str:
    """What the driver says, if that can hold no value of a row; else what kind of error it is."""
    code = error.sqlstate
    if code is not None and (not code.startswith(_OWN_WORDS) or error.diag.context is not None):
        return f"{type(error).__name__} (SQLSTATE {code})"
    return (error.diag.message_primary or str(error)).strip().splitlines()[0]
