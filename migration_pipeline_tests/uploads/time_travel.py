"""URLs that were signed at another time: botocore takes the time from its own clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import botocore.auth
import botocore.signers
import pytest


@contextmanager
def signed_at(ago: timedelta) -> Iterator[None]:
    """Everything signed in the block is signed as it would have been `ago`."""

    def then(remove_tzinfo: bool = True) -> datetime:  # noqa: FBT001, FBT002 - botocore's signature
        moment = datetime.now(UTC) - ago
        return moment.replace(tzinfo=None) if remove_tzinfo else moment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", then)
        patch.setattr(botocore.signers, "get_current_datetime", then)
        yield
