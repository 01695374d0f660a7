"""The kinds of profiles that an app of some age has, and what a migration makes of each."""

from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
    """What is particular about a profile."""

    PLAIN = "plain"
    ALIAS_HOST = "alias_host"  # URLs of the CDN's host
    SAS = "sas"  # URLs with a working SAS in the query string
    SHARED = "shared"  # neighbours in pairs: the second holds the first one's files, under other spellings
    NASTY_NAMES = "nasty_names"
    ODD_HEADERS = "odd_headers"
    FOREIGN = "foreign"  # one photo of another site
    BIG_NUMBER = "big_number"  # a number that floats and 64-bit integers cannot hold
    NO_DOCUMENT = "no_document"
    DRIFTED = "drifted"  # its document has a photo less than its row
    DELETED = "deleted"
    WITHOUT_PHOTOS = "without_photos"
    ALREADY_MIGRATED = "already_migrated"
    MISSING_BLOB = "missing_blob"
    WRONG_MD5 = "wrong_md5"
    TARGET_CONFLICT = "target_conflict"
    TOO_LONG_KEY = "too_long_key"


BAD_OUTCOMES: Mapping[Kind, str] = {
    Kind.MISSING_BLOB: "source_missing",
    Kind.WRONG_MD5: "digest_mismatch",
    Kind.TARGET_CONFLICT: "target_conflict",
    Kind.TOO_LONG_KEY: "too_long_key",
}
"""Kinds with one file that cannot be copied, and the outcome it must end with."""

UNTOUCHED = frozenset({Kind.DELETED, Kind.WITHOUT_PHOTOS, Kind.ALREADY_MIGRATED})
"""Kinds that no run may write to."""

CYCLE = 60
"""The kinds come round after so many profiles."""
_BAD_CYCLES = 16
"""Bad files come in every sixteenth cycle: about one profile in a thousand has one of each kind."""

_COMMON: Mapping[int, Kind] = {
    3: Kind.SAS,
    5: Kind.ALIAS_HOST,
    7: Kind.DELETED,
    9: Kind.WITHOUT_PHOTOS,
    11: Kind.ALREADY_MIGRATED,
    13: Kind.SHARED,
    14: Kind.SHARED,
    21: Kind.FOREIGN,
    23: Kind.NASTY_NAMES,
    28: Kind.SAS,
    31: Kind.ALIAS_HOST,
    35: Kind.NO_DOCUMENT,
    37: Kind.DRIFTED,
    39: Kind.BIG_NUMBER,
    41: Kind.ODD_HEADERS,
    43: Kind.DELETED,
    45: Kind.WITHOUT_PHOTOS,
    47: Kind.ALREADY_MIGRATED,
    51: Kind.SAS,
    54: Kind.SHARED,
    55: Kind.SHARED,
}
_BAD: Mapping[int, Kind] = {
    17: Kind.MISSING_BLOB,
    19: Kind.WRONG_MD5,
    26: Kind.TARGET_CONFLICT,
    29: Kind.TOO_LONG_KEY,
}


def kind_of(index: int, *, bad_files: bool = True) -> Kind:
    """The kind of the profile at this place, counted from 0; the same for every seed."""
    cycle, place = divmod(index, CYCLE)
    if place in _BAD and bad_files and cycle % _BAD_CYCLES == 0:
        return _BAD[place]
    return _COMMON.get(place, Kind.PLAIN)


def end_of(kind: Kind) -> str:
    """What a finished migration says of such a profile: migrated, waiting or untouched."""
    if kind in UNTOUCHED:
        return "untouched"
    return "waiting" if kind in BAD_OUTCOMES else "migrated"
