"""The photos in the profiles' rows: a JSON column, as in the app that is migrated."""

import json
import secrets
from typing import Any

import psycopg

_ADD = """
UPDATE profiles
SET photos = coalesce(photos, '[]') || jsonb_build_object(
      'id', %(id)s::text, 'original', %(reference)s::text, 'position', jsonb_array_length(coalesce(photos, '[]'))),
    updated_at = now()
WHERE id = %(profile)s AND deleted_at IS NULL AND NOT coalesce(photos, '[]') @> %(same)s::jsonb
"""
_LIVING = "SELECT coalesce(photos, '[]') FROM profiles WHERE id = %s AND deleted_at IS NULL"


class Photos:
    """Reads and writes the profiles' photos."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    def of(self, profile: str) -> list[dict[str, Any]] | None:
        """A profile's photos; `None` where there is no such profile."""
        try:
            with psycopg.connect(self._database_url) as connection:
                row = connection.execute(_LIVING, (profile,)).fetchone()
        except psycopg.DataError:  # no id of this table's type
            return None
        return row[0] if row else None

    def holds(self, profile: str, reference: str) -> bool:
        """Whether a photo of the profile has this reference."""
        return any(photo.get("original") == reference for photo in self.of(profile) or [])

    def reference(self, profile: str, photo_id: str) -> str | None:
        """A photo's reference."""
        found = (photo for photo in self.of(profile) or [] if photo.get("id") == photo_id)
        return next((photo.get("original") for photo in found), None)

    def add(self, profile: str, reference: str) -> bool:
        """Append a photo, once however often it is asked; false where the profile is gone.

        One statement: what other requests, or the migration, do to the row at the same time stays.
        """
        with psycopg.connect(self._database_url) as connection:
            connection.execute(
                _ADD,
                {
                    "id": secrets.token_hex(8),
                    "reference": reference,
                    "profile": profile,
                    "same": json.dumps([{"original": reference}]),
                },
            )
        return self.holds(profile, reference)
