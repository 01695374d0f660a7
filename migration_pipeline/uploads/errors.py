"""What can go wrong, by what the app should do next. No message holds a signature or a key of an account."""


class UploadsError(Exception):
    """Anything that this package raises by itself."""


class Misconfigured(UploadsError):  # noqa: N818 - says what the configuration is
    """The configuration cannot work: mend it, and start again."""


class Refused(UploadsError):  # noqa: N818 - says what became of the wish
    """The rules do not allow it: tell the user, status 422 for example. Trying again changes nothing."""


class NotConfirmed(Refused):
    """An upload is not there, or is not what was allowed: write no reference to it.

    Attributes:
        there: something is stored that was not allowed, and may be discarded.
    """

    def __init__(self, reason: str, *, there: bool = False) -> None:
        super().__init__(reason)
        self.there = there


class StoreTrouble(UploadsError):  # noqa: N818 - says who has trouble
    """The store did not answer, or not in time: nothing is known of the upload. Try again, status 503 for example."""
