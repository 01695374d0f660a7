"""One schedule: users act, the migration's stages run and are cut off, in an order that a seed draws."""

import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import google.cloud.firestore
import psycopg
from azure.storage.blob import ContainerClient
from google.auth.credentials import AnonymousCredentials

from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.postgres.profiles import PostgresProfiles
from migration_pipeline.core.copy_file import CopyLimits
from migration_pipeline.core.erase import erase
from migration_pipeline.core.migrate import Stores, migrate_range
from migration_pipeline.core.model import ProfileRange
from migration_pipeline.core.rollback import roll_back_range
from migration_pipeline.core.sweep import Swept, sweep_files, sweep_profiles
from migration_pipeline.core.texts import Text
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.settings import Settings, load
from migration_pipeline.stores import open_stores
from migration_pipeline_tests.scenarios.watched import Cut, Watch
from migration_pipeline_tests.soak.oracle import (
    Broken,
    after_erasing,
    after_rollback,
    at_any_moment,
    when_all_is_done,
)
from migration_pipeline_tests.soak.simulated_app import SCHEMA, App, Servers, Waits, s3_client

LIMITS = CopyLimits(in_flight=2, max_attempts=1, read_back="never")
_RESTORE = 0.2
"""How often a photo comes back from a backup between two runs, after copies were erased."""
FIREBASE_IS_READ = {"set_flags", "inside set_flags"}


@dataclass(slots=True)
class Told:
    """What came of schedules."""

    schedules: int = 0
    edits: int = 0
    crashes: int = 0
    waited: int = 0
    lost: int = 0
    broken: list[Broken] = field(default_factory=list)

    def line(self) -> str:
        return f"schedules {self.schedules}, promises broken {len(self.broken)}, edits {self.edits}, lost {self.lost}"


@dataclass(frozen=True, slots=True)
class World:
    """Stores that all schedules share, each with ids of its own."""

    servers: Servers
    stores: Stores
    ledger: PostgresLedger
    profiles: PostgresProfiles
    settings: Settings
    environment: dict[str, str]


@contextmanager
def open_world(
    sandbox: Sandbox, *, azure_account_url: str | None = None, s3_endpoint_url: str | None = None
) -> Iterator[World]:
    """A database, a container, a bucket and documents.

    Args:
        sandbox: where everything is.
        azure_account_url: where the migration, and every URL of the app, finds the source; the app itself uploads
            directly.
        s3_endpoint_url: where the migration finds the target.
    """
    name = f"soak{uuid4().hex[:8]}"
    with ExitStack() as stack:
        url = sandbox.create_database(name)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SCHEMA)
        key = sandbox.environment["AZURE_STORAGE_KEY"]
        container = stack.enter_context(ContainerClient(sandbox.azure_account_url, name, credential=key))
        container.create_container(public_access="blob")
        s3 = s3_client(sandbox.s3_endpoint_url)
        stack.callback(s3.close)
        s3.create_bucket(Bucket=name)
        policy = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*"}
        s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [policy]}))
        firestore = google.cloud.firestore.Client(name, credentials=AnonymousCredentials())
        stack.callback(firestore.close)
        base = f"{sandbox.s3_endpoint_url}/{name}"
        account = azure_account_url or sandbox.azure_account_url
        endpoint = s3_endpoint_url or sandbox.s3_endpoint_url
        environment = {**sandbox.environment, **variables(name, url, account, endpoint, base)}
        settings = load(environment)
        stores = stack.enter_context(open_stores(settings))
        servers = Servers(url, container, f"{account}/{name}", s3, name, base, firestore)
        yield World(servers, stores, stores.ledger, stores.profiles, settings, environment)  # type: ignore[arg-type] # what open_stores opens


def variables(
    name: str, url: str, azure_account_url: str, s3_endpoint_url: str, public_base_url: str
) -> dict[str, str]:
    """The migration's settings."""
    return {
        "DATABASE_URL": url,
        "MIGRATION_CONFIG": "/dev/null",
        "MIGRATION_SOURCE__ACCOUNT_URL": azure_account_url,
        "MIGRATION_SOURCE__CONTAINERS": json.dumps([name]),
        "MIGRATION_TARGET__BUCKET": name,
        "MIGRATION_TARGET__REGION": "us-east-1",
        "MIGRATION_TARGET__ENDPOINT_URL": s3_endpoint_url,
        "MIGRATION_TARGET__PUBLIC_BASE_URL": public_base_url,
        "MIGRATION_DATABASE__PROFILES": json.dumps(
            {
                "columns": ["photos", "raw", "cover", "extra", {"name": "bio", "embedded": True}, "page"],
                "deleted_at": "deleted_at",
            }
        ),
        "MIGRATION_SOURCE__QUERY": "keep",
        "MIGRATION_DATABASE__RELATED": json.dumps(
            [{"table": "verifications", "profile_id": "profile_id", "columns": ["photo_url"]}]
        ),
        "MIGRATION_FIREBASE__KIND": "firestore",
        "MIGRATION_FIREBASE__PROJECT_ID": name,
    }


class Disturbed(Watch):
    """Stores during one run: before each operation, and inside transactions, users may act or the process may end."""

    def __init__(self, app: App, told: Told, rng: random.Random, *, cut_at: int, cut_after: str = "") -> None:
        super().__init__()
        self._app, self._told, self._rng, self._cut_at, self._cut_after = app, told, rng, cut_at, cut_after
        self._turn = threading.Lock()

    def stores(self, stores: Stores) -> Stores:
        watched = super().stores(stores)
        return replace(
            watched,
            profiles=_Inside(watched.profiles, self._step),  # type: ignore[arg-type] # stands for the port
            documents=_Inside(watched.documents, self._step),  # type: ignore[arg-type] # as above
        )

    def _step(self, name: str) -> None:
        with self._turn:  # outcomes are recorded in a thread of its own
            self._moment(name)

    def _moment(self, name: str) -> None:
        after = self._cut_after in self.seen and self._cut_after not in name
        self.seen.append(name)
        if after or len(self.seen) == self._cut_at:
            self._told.crashes += 1
            raise Cut
        # Few moments are as short as that before the flag is set, and few matter as much.
        if self._rng.random() < (0.6 if name in FIREBASE_IS_READ else 0.2):
            self._app.firebase_is_read = name in FIREBASE_IS_READ
            try:
                self._app.act()
            except Waits:
                self._told.waited += 1
            self._app.firebase_is_read = False


class _Inside:
    """A site whose callbacks, called between its reading and its writing, are moments too."""

    def __init__(self, site: Any, step: Callable[[str], None]) -> None:
        self._site, self._step = site, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site, name)

    def rewrite(self, ids: Any, replace_for: Callable[[Any], Any], fence: Any) -> Any:
        def hooked(id_: Any) -> Any:
            replacing = replace_for(id_)

            def look(texts: Sequence[Text]) -> Any:
                for _ in texts:
                    self._step("inside rewrite")
                return replacing(texts)

            return look

        return self._site.rewrite(ids, hooked, fence)

    def set_flags(self, ids: Any, unmoved: Callable[[Text], bool], fence: Any) -> Any:
        def hooked(text: Text) -> bool:
            self._step("inside set_flags")
            return unmoved(text)

        return self._site.set_flags(ids, hooked, fence)


@dataclass(frozen=True, slots=True)
class Aim:
    """What schedules draw more often than by chance.

    Attributes:
        cut_after: an operation after which the disturbed runs end in any case.
        back: the share of schedules that erase copies, roll back, and migrate again.
        meddle: how often somebody changes objects in S3 between two runs.
    """

    cut_after: str = ""
    back: float = 0.3
    meddle: float = 0.4


def run_schedule(world: World, seed: int, told: Told, aim: Aim = Aim()) -> None:
    """Create users, disturb some runs, then let everything come to rest, and judge.

    Args:
        world: the stores.
        seed: of all that is drawn.
        told: what came of schedules; gains.
        aim: what it draws more often.
    """
    rng = random.Random(seed)
    first = 10 * (len(world.ledger.ranges()) + 1)
    app = App(world.servers, first, rng)
    try:
        app.create()
        key = f"{first:010}-{first + 2:010}"
        ranges = world.ledger.ranges()
        world.ledger.add_ranges([ProfileRange(key, len(ranges) + 1, ranges[-1].last if ranges else None, first + 2, 3)])
        _Schedule(world, app, key, rng, told, aim).run()
        told.schedules += 1
        told.edits += app.edits
    finally:
        app.close()


class _Schedule:
    def __init__(self, world: World, app: App, key: str, rng: random.Random, told: Told, aim: Aim) -> None:
        self._world, self._app, self._key, self._rng, self._told = world, app, key, rng, told
        self._aim = aim

    def run(self) -> None:
        if not self._disturbed():
            return
        self._come_to_rest()
        if not self._judge(when_all_is_done):
            return
        self._judge_again()
        if self._rng.random() < self._aim.back and self._judge_erasing():
            self._there_and_back()

    def _disturbed(self) -> bool:
        stages: dict[Callable[[Stores], object], float] = {
            partial(migrate_range, self._key, limits=LIMITS): 7,
            self._sweep: 1,
            self._sweep_files: 1,
            self._erase: 1,
            partial(roll_back_range, self._key): 1,
        }
        for _ in range(self._rng.randint(2, 4)):
            if self._rng.random() < self._aim.meddle:
                self._app.meddle()
            if self._app.forgotten and self._rng.random() < _RESTORE:
                self._app.restore(self._app.users[0])
            (stage,) = self._rng.choices(list(stages), list(stages.values()))
            cut_at = self._rng.randint(1, 60) if self._rng.random() < 0.6 else 0
            watch = Disturbed(self._app, self._told, self._rng, cut_at=cut_at, cut_after=self._aim.cut_after)
            with _moments_inside() if self._rng.random() < 0.5 else nullcontext():
                _until_cut(partial(stage, watch.stores(self._world.stores)))
            if not self._judge(at_any_moment):
                return False
        return True

    def _come_to_rest(self) -> None:
        """Runs, until nothing came late any more."""
        self._app.settle()
        stores = self._world.stores
        migrate_range(self._key, stores, LIMITS)
        self._sweep(stores)
        self._sweep_files(stores)
        if self._world.ledger.requested():
            migrate_range(self._key, stores, LIMITS)

    def _judge_again(self) -> None:
        """Another run does nothing at all."""
        before = self._app.stamp()
        report = migrate_range(self._key, self._world.stores, LIMITS)
        if self._app.stamp() != before or report.transferred.copied:
            self._tell([Broken(6, f"another run copied {report.transferred.copied} files, or wrote")])

    def _judge_erasing(self) -> bool:
        copied = {f"{self._world.servers.public_base_url}/{key}" for key in self._app.objects()}
        erase(self._world.stores, seconds=0)
        return self._judge(partial(after_erasing, copied=copied)) and self._judge(when_all_is_done)

    def _there_and_back(self) -> None:
        if self._app.missing:  # what is gone at the source cannot go back there
            return
        if self._rng.random() < self._aim.meddle:
            self._app.meddle()
        watch = Disturbed(self._app, self._told, self._rng, cut_at=self._rng.randint(0, 60))
        _until_cut(partial(roll_back_range, self._key, watch.stores(self._world.stores)))
        if not self._judge(at_any_moment):
            return
        self._app.settle()
        roll_back_range(self._key, self._world.stores)
        if self._judge(after_rollback):
            self._come_to_rest()
            self._judge(when_all_is_done)

    def _sweep(self, stores: Stores) -> None:
        ids = [user.id_ for user in self._app.users]
        sweep_profiles([stores.profiles.find(ids)], stores)
        for user in self._app.users:
            user.late = user.late and self._app.flag(user)

    def _sweep_files(self, stores: Stores) -> None:
        sweep_files([self._key], stores, Swept())

    def _erase(self, stores: Stores) -> None:
        # In life a day passes before copies go, and no client remembers that long.
        self._app.forgotten += [(user, photo["uid"]) for user, photo in self._app.removed]
        self._app.forget()
        erase(stores, seconds=0)

    def _judge(self, judge: Callable[[App], Iterator[Broken]]) -> bool:
        return self._tell(list(judge(self._app)))

    def _tell(self, broken: list[Broken]) -> bool:
        self._told.broken += broken
        self._told.lost += sum(item.promise == 3 for item in broken)
        return not broken


def _moments_inside() -> Any:
    """Rows are looked through under their locks alone, so that users act while they are locked."""
    return patch.object(PostgresProfiles, "_prepare", lambda *_: None)


def _until_cut(run: Callable[[], object]) -> None:
    try:
        run()
    except* Cut:
        pass
