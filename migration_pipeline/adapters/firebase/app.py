"""Connecting to Firebase, for both of its databases."""

import os
from collections.abc import Mapping
from typing import Any

from migration_pipeline.core.errors import Fatal

_DEADLINE = 30  # seconds that a request over HTTP may take
CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"


def connect(project_id: str, *, emulator: str, options: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 - firebase-admin has no types
    """A Firebase app of our own.

    Args:
        project_id: the Firebase project.
        emulator: the environment variable that names an emulator, which needs no credentials.
        options: further ones of firebase-admin's.

    Raises:
        Fatal: no credentials were found.
    """
    import firebase_admin  # noqa: PLC0415 - 0.3 s that processes without documents need not spend
    from firebase_admin import credentials  # noqa: PLC0415 - as above
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - as above
    from google.auth.exceptions import DefaultCredentialsError  # noqa: PLC0415 - as above

    class Anonymous(credentials.Base):  # type: ignore[misc] # firebase-admin has no types
        """What an emulator takes; firebase-admin would ask for real credentials even there."""

        def get_credential(self) -> AnonymousCredentials:
            return AnonymousCredentials()  # type: ignore[no-untyped-call] # as above

    credential = Anonymous() if os.environ.get(emulator) else credentials.ApplicationDefault()
    given = {"projectId": project_id, "httpTimeout": _DEADLINE, **(options or {})}
    try:
        # Named apart from the default app, which belongs to whoever imports us.
        app = firebase_admin.initialize_app(credential, given, name=f"migration-pipeline-{os.urandom(4).hex()}")
        app.credential.get_credential()
    except (DefaultCredentialsError, OSError, ValueError) as error:
        raise Fatal(
            f"no usable credentials ({type(error).__name__}).",
            setting=CREDENTIALS,
            remedy="Name a service account's key file that may read and write the documents.",
        ) from None
    return app
