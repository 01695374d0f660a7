"""Users who come and go, as many at any time: what grows meanwhile does so because somebody forgot to give it back."""

import random
import threading
import time
import zlib
from collections.abc import Sequence

from migration_pipeline_tests.soak.live import PER_RANGE, THREADS, LiveApps, first_id, range_of
from migration_pipeline_tests.soak.schedules import World
from migration_pipeline_tests.soak.simulated_app import App

MEMORY_SECONDS = 20.0
"""How long an old client remembers what it read; far less than `erase.after_hours` leaves it."""
SMALL_BYTES, LARGE_BYTES = 20_000, 9_000_000  # the large ones are copied in parts
ONE_LARGE_IN = 400


class PassingApp(App):
    """An app whose users close their accounts one day.

    Attributes:
        closes_at: when they do, by the monotonic clock.
        forgets_at: when old clients have forgotten what they read.
    """

    closes_at = 0.0
    forgets_at = 0.0

    def body(self, uid: str, version: int | None = None) -> bytes:
        drawn = zlib.crc32(uid.encode())
        size = drawn % SMALL_BYTES if drawn % ONE_LARGE_IN else LARGE_BYTES
        return super().body(uid, version) + b" " + bytes(size)

    def close_accounts(self) -> None:
        """Rows and documents go for good; what is in the old store stays there until that is closed."""
        self.settle()
        for user in self.users:
            if user.gone and not user.soft_deleted:
                continue
            with self._row(user):
                self._execute("DELETE FROM profiles WHERE id = %s", [user.id_])
            self._document(user).delete()
            user.gone, user.places = True, {place: [] for place in user.places}
            self.edits += 2


class PassingApps(LiveApps):
    """So many of them; when the users of one leave, another one comes, with ids beyond all others."""

    apps: list[PassingApp]  # type: ignore[assignment] # what _made makes

    def __init__(self, world: World, seed: int, *, size: int, life: float) -> None:
        """So many seconds each lives; those of the beginning are of any age."""
        self._life, self._come, self._left = life, size, list[PassingApp]()
        self._turn = threading.Lock()
        super().__init__(world, seed, size)
        for app in self.apps:
            app.closes_at -= self._rng.random() * life

    @property
    def everybody(self) -> Sequence[PassingApp]:
        return [*self._left, *self.apps]

    def _made(self, number: int, place: int) -> PassingApp:
        with self._turn:
            rng = random.Random(self._rng.random())
        app = PassingApp(self.world.servers, first_id(number), rng, self._databases[place % THREADS], deletes=0.1)
        app.create()
        app.closes_at = time.monotonic() + self._life
        return app

    def _one_acts(self, place: int) -> None:
        app, now = self.apps[place], time.monotonic()
        if now > app.closes_at:
            app.close_accounts()
            number = self._next_number()
            self.apps[place] = self._made(number, place)
            self._left.append(app)
            return
        if now > app.forgets_at:
            app.forget()
            app.forgets_at = now + MEMORY_SECONDS
        app.act()

    def _next_number(self) -> int:
        """Of an app to come; the first of a range makes it."""
        with self._turn:
            number, self._come = self._come, self._come + 1
            if number % PER_RANGE == 0:
                self.world.ledger.add_ranges([range_of(number // PER_RANGE)])
            return number
