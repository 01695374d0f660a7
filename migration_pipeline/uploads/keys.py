"""Names for new files: under their profile, unguessable, and never those of a migrated file."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from migration_pipeline.uploads.errors import Misconfigured, Refused

_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LITERAL = re.compile(r"[A-Za-z0-9!_.*'()/-]*")
"""Amazon S3 User Guide, "Naming Amazon S3 objects": characters that are safe in keys everywhere."""
_NAME = "[0-9a-f]{32}"
_PLACEHOLDERS = ("{profile}", "{name}", "{extension}")
_CONTAINER = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
"""Azure: "Naming and Referencing Containers, Blobs, and Metadata"; special ones begin with `$`, as our keys do not."""


@dataclass(frozen=True, slots=True)
class KeyRules:
    """How keys are made.

    Attributes:
        template: with `{profile}`, then `{name}` (128 random bits) and `{extension}` at the end.
    """

    template: str = "u/{profile}/{name}{extension}"

    def __post_init__(self) -> None:
        text = self.template
        if any(text.count(each) != 1 for each in _PLACEHOLDERS) or not text.endswith("{name}{extension}"):
            raise Misconfigured(f"key template {text!r} must hold {{profile}} once and end with {{name}}{{extension}}")
        if "{profile}/" not in text or not re.search(r"(?:^|/)\{profile\}/", text):
            raise Misconfigured(f"key template {text!r}: {{profile}} must be a folder of its own")
        bare = text
        for each in _PLACEHOLDERS:
            bare = bare.replace(each, "x")
        if not _LITERAL.fullmatch(bare) or any(part in ("", ".", "..") for part in bare.split("/")):
            raise Misconfigured(f"key template {text!r} holds characters or folders that do not work everywhere")

    def new(self, profile: str, extension: str) -> str:
        """A key that nobody has and nobody can guess; raises `Refused` for odd profile ids."""
        return self._filled(self._checked(profile), secrets.token_hex(16), extension)

    def belongs_to(self, key: str, profile: str, extension: str) -> bool:
        """Whether `new` could have made this key for the profile."""
        head, tail = self.template.removesuffix("{name}{extension}").split("{profile}")
        expected = re.escape(head + self._checked(profile) + tail) + _NAME + re.escape(extension)
        return re.fullmatch(expected, key) is not None

    def check_apart(self, migrated: Sequence[str] | None) -> None:
        """Refuse templates whose keys could be those of migrated files.

        Args:
            migrated: what the keys of migrated files begin with; `None` for the migration's own default,
                `{container}/{blob}`: our first folder must then be one that no container can be called.

        Raises:
            Misconfigured: with the way out.
        """
        head = self.template.split("{profile}")[0]
        if migrated is None:
            if not head or _CONTAINER.fullmatch(head.split("/")[0]):
                raise Misconfigured(
                    f"keys like {self.template!r} could be those of migrated files, {{container}}/{{blob}}: begin with "
                    "a folder that cannot be a container's name (those have three characters or more: u/ is safe), or "
                    "say under which prefixes migrated files are"
                )
            return
        for prefix in migrated:
            if head.startswith(prefix) or prefix.startswith(head):
                raise Misconfigured(f"keys like {self.template!r} could lie under {prefix!r}, where migrated files are")

    def _filled(self, profile: str, name: str, extension: str) -> str:
        return self.template.format(profile=profile, name=name, extension=extension)

    @staticmethod
    def _checked(profile: str) -> str:
        # What is not on this list of characters cannot traverse, hide or break anything.
        if not _PROFILE.fullmatch(profile):
            raise Refused("a profile id has 1 to 64 letters, digits, - and _, and begins with a letter or digit")
        return profile
