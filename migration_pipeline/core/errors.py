"""What can go wrong, named by what the caller should do next.

::

    MigrationError
    ├── Transient         try again, after `retry_after` seconds if the store said so
    ├── Permanent         this file ends with `outcome`; go on with the others
    ├── Fatal             stop: nothing of this kind can work until `setting` is mended
    │   ├── SettingsError   the configuration itself is refused
    │   └── Unreachable     nobody answers there; for a run at work, it may come back
    ├── RangeBusy         another run holds the range; let it finish
    └── RangeLost         another run took the range while this one was away; it goes on

All of them cross process borders (Dagster pickles errors), so each rebuilds from its own arguments.
"""

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from migration_pipeline.core.model import Outcome


class MigrationError(Exception):
    """Base of all errors that the migration raises on purpose."""


class Transient(MigrationError):  # noqa: N818 - named, like its siblings, by what to do next
    """The store could not answer now; the same call may succeed later.

    Attributes:
        retry_after: seconds the store asked us to wait, if it did.
        overload: it has more to do than it can: fewer requests at once will help.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, overload: bool = False) -> None:
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after
        self.overload = overload

    def __str__(self) -> str:
        return self.message


class Permanent(MigrationError):  # noqa: N818 - as above
    """One file cannot be copied; trying again changes nothing until somebody acts."""

    def __init__(self, outcome: "Outcome", message: str) -> None:
        super().__init__(outcome, message)
        self.outcome = outcome
        self.message = message

    def __str__(self) -> str:
        return self.message


class Fatal(MigrationError):  # noqa: N818 - as above
    """A whole store refuses us: credentials, a missing bucket, an unreachable database.

    Attributes:
        setting: the setting or environment variable to look at.
        remedy: what would be right, in one sentence.
    """

    def __init__(self, message: str, *, setting: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.setting = setting
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.setting}: {self.message}" + (f" {self.remedy}" if self.remedy else "")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_fatal, (type(self), self.message, self.setting, self.remedy)


def _rebuild_fatal(kind: type[Fatal], message: str, setting: str, remedy: str) -> Fatal:
    return kind(message, setting=setting, remedy=remedy)


class SettingsError(Fatal):
    """The configuration is refused: an unknown key, a wrong type, a missing secret."""


class Unreachable(Fatal):
    """Nobody answers where a store is said to be: a wrong address, or a server that is away for a while."""


class RangeBusy(MigrationError):  # noqa: N818 - a state, not a failure
    """Another run, on this or another machine, works on the same range."""

    def __init__(self, range_key: str) -> None:
        super().__init__(range_key)
        self.range_key = range_key

    def __str__(self) -> str:
        return (
            f"range {self.range_key} is being worked on by another run (its advisory lock is held). "
            "Let that run end, or end it, and run this partition again."
        )


class RangeLost(MigrationError):  # noqa: N818 - a state, not a failure
    """This process was away so long, paused or cut off, that another run took its range; it may write no more."""

    def __init__(self, range_key: str) -> None:
        super().__init__(range_key)
        self.range_key = range_key

    def __str__(self) -> str:
        return (
            f"range {self.range_key} was taken over by another run while this one was away. Nothing was written since; "
            "the other run goes on."
        )


def whereabouts(error: BaseException) -> str:
    """An error's type and the innermost line of this project that it passed; of a group, those of the first.

    Its text is left out, for it may hold values.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    lines = [
        f"{frame.f_globals.get('__name__', '')}:{number}"
        for frame, number in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).startswith("migration_pipeline.")
    ]
    return f"{type(error).__name__} at {lines[-1]}" if lines else type(error).__name__


def worst(errors: BaseExceptionGroup[MigrationError]) -> MigrationError:
    """Of several errors the one that decides what to do next."""
    single = _flat(errors)
    for kind in (Fatal, Permanent, Transient):
        for error in single:
            if isinstance(error, kind):
                return error
    return single[0]


def _flat(errors: BaseExceptionGroup[MigrationError]) -> list[MigrationError]:
    found: list[MigrationError] = []
    for error in errors.exceptions:
        found += _flat(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
