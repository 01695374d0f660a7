"""Real servers on this machine, and a made-up app on them, for the demo and the tests."""

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from migration_pipeline.sandbox import azurite, leftovers, seaweedfs
from migration_pipeline.sandbox.azurite import AzuriteServer
from migration_pipeline.sandbox.firestore import FirestoreServer
from migration_pipeline.sandbox.postgres import PostgresServer
from migration_pipeline.sandbox.realtime_database import RealtimeDatabaseServer
from migration_pipeline.sandbox.seaweedfs import SeaweedServer

_Server = TypeVar("_Server", PostgresServer, AzuriteServer, SeaweedServer, FirestoreServer, RealtimeDatabaseServer)


class Sandbox:
    """Postgres, Azurite, SeaweedFS, Firestore and a Realtime Database, for as long as the `with` block runs.

    Attributes:
        folder: data and logs; a temporary one is removed at the end, a given one is kept.
        environment: what processes of the migration need to find the servers.
    """

    def __init__(
        self, folder: Path | None = None, *, firestore: Literal["auto", "emulator", "standin"] = "auto"
    ) -> None:
        self._given, self._firestore_kind = folder, firestore
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = self._make_folder(stack)
            with ThreadPoolExecutor() as pool:
                postgres = pool.submit(self._opened, stack, lambda: PostgresServer(self.folder / "postgres"))
                azure = pool.submit(self._opened, stack, lambda: AzuriteServer(self.folder / "azurite"))
                seaweed = pool.submit(self._opened, stack, lambda: SeaweedServer(self.folder / "seaweedfs"))
                documents = pool.submit(
                    self._opened, stack, lambda: FirestoreServer(self.folder / "firestore", self._firestore_kind)
                )
                realtime = pool.submit(
                    self._opened, stack, lambda: RealtimeDatabaseServer(self.folder / "realtime_database")
                )
            self._postgres, self._azurite = postgres.result(), azure.result()
            self._seaweed, self._firestore = seaweed.result(), documents.result()
            self._realtime = realtime.result()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.database_url,
            "DAGSTER_PG_USERNAME": "postgres",
            "DAGSTER_PG_PASSWORD": "unused",
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self._postgres.port),
            "DAGSTER_PG_DB": "dagster",
            "AZURE_STORAGE_KEY": azurite.KEY,
            "AWS_ACCESS_KEY_ID": seaweedfs.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": seaweedfs.SECRET_KEY,
            "AWS_REGION": seaweedfs.REGION,
            "FIRESTORE_EMULATOR_HOST": self._firestore.host,
            # The name that Firebase's own emulator uses, so that firebase-admin finds it.
            "FIREBASE_DATABASE_EMULATOR_HOST": self._realtime.host,
            "GOOGLE_CLOUD_PROJECT": "demo",
        }

    @property
    def database_url(self) -> str:
        """The app's database."""
        return self._postgres.url("app")

    @property
    def azure_account_url(self) -> str:
        """The source's endpoint."""
        return self._azurite.account_url

    @property
    def s3_endpoint_url(self) -> str:
        """The target's endpoint."""
        return self._seaweed.endpoint_url

    @property
    def bucket(self) -> str:
        """The target's bucket."""
        return seaweedfs.BUCKET

    @property
    def public_base_url(self) -> str:
        """Where everybody may GET the bucket's objects."""
        return f"{self.s3_endpoint_url}/{self.bucket}"

    @property
    def firestore_kind(self) -> str:
        """`emulator` or `standin`."""
        return self._firestore.kind

    def create_database(self, name: str) -> str:
        """Make a further database and return its URL."""
        return self._postgres.create_database(name)

    @property
    def postgres(self) -> PostgresServer:
        """The server of the app's database, the ledger and Dagster, to be crashed by whoever wants to see that."""
        return self._postgres

    def _make_folder(self, stack: ExitStack) -> Path:
        if self._given is not None:
            self._given.mkdir(parents=True, exist_ok=True)
            return self._given.resolve()
        leftovers.remove_abandoned()
        folder = Path(tempfile.mkdtemp(prefix=leftovers.PREFIX))
        stack.enter_context(leftovers.in_use(folder))
        # Postgres runs as another user where we are root, and has to reach its own folder in it.
        folder.chmod(0o711)
        stack.callback(shutil.rmtree, folder)
        return folder

    @staticmethod
    def _opened(stack: ExitStack, make: Callable[[], _Server]) -> _Server:
        server = make()
        stack.callback(server.close)
        return server
