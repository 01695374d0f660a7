"""Replacing strings of values as a whole, for tests of what stores do with that."""

from collections.abc import Callable, Sequence

from migration_pipeline.core.texts import Text
from migration_pipeline.core.values import Edit, Replace


def whole(new_of: Callable[[str], str | None]) -> Replace:
    """Strings become what `new_of` says, and stay where it says nothing."""

    def edits(text: Text) -> list[Edit]:
        new = None if text.is_key else new_of(text.text)
        return [] if new is None else [Edit(0, len(text.text), new)]

    def replace(texts: Sequence[Text]) -> list[list[Edit]]:
        return [edits(text) for text in texts]

    return replace


def strings(texts: Sequence[Text]) -> list[str]:
    """What these texts say, keys of objects left out."""
    return [text.text for text in texts if not text.is_key]
