"""Whether the promises hold, judged by what the users did. Shares no code with the product."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from migration_pipeline_tests.soak.simulated_app import App, User


class Broken(NamedTuple):
    """A promise of the design, by its number, and what was seen; 0 is the promise to erase."""

    promise: int
    what: str


def at_any_moment(app: App) -> Iterator[Broken]:
    """What must hold whatever is half done."""
    yield from (Broken(3, lost) for lost in app.lost)
    for user in app.users:
        held = app.held(user)
        for place, found in held.items():
            yield from _place(app, user, place, found)
        urls = [url for found in held.values() for _, url in found]
        in_source = any(url.startswith(app.servers.source_base) for url in urls)
        if not user.gone and not user.late and (in_source or user.page) and app.flag(user):
            yield Broken(5, f"user {user.id_} is flagged and holds {urls} {user.page}")
        # What a text names, in whatever spelling, is still there.
        for uid in user.named:
            if uid not in app.missing and app.fetch(app.source_url(uid)) is None:
                yield Broken(13, f"{uid} is named in a text of user {user.id_}, and is gone")
    for key, body in app.planted.items():
        if app.fetch(f"{app.servers.public_base_url}/{key}") != body:
            yield Broken(4, f"{key} was replaced or removed")


def _place(app: App, user: User, place: str, found: list[tuple[str | None, str]]) -> Iterator[Broken]:
    expected = user.places[place]
    named = [uid for uid, _ in found]
    if len(found) != len(expected) or any(a not in (None, b) for a, b in zip(named, expected, strict=True)):
        yield Broken(3, f"user {user.id_}, {place}: {found}, the users' acts say {expected}")
        return
    for uid, (_, url) in zip(expected, found, strict=True):
        body = app.fetch(url)
        in_source = url.startswith(app.servers.source_base)
        if body is None and not (in_source and uid in app.missing):
            yield Broken(1, f"user {user.id_}, {place}: {url} leads nowhere")
        elif in_source and uid in app.replaced:
            yield Broken(3, f"user {user.id_}, {place}: {url} leads to older bytes than the app wrote to S3")
        elif body is not None and not body.startswith(f"{uid} version".encode()):
            another = body.split(b" ")[0].decode(errors="replace") in app.versions
            yield Broken(3 if another else 2, f"user {user.id_}, {place}: {url} leads to {body[:80]!r}, not to {uid}")


def when_all_is_done(app: App) -> Iterator[Broken]:
    """What must hold after runs that nobody disturbed."""
    if broken := list(at_any_moment(app)):
        yield from broken
        return
    unnoticed = _copied_unnoticed(app)
    bad = app.missing | {key.rpartition("/")[2].removesuffix(".jpg") for key in app.planted if "uploads/" not in key}
    bad = (bad - app.replaced) | app.archived()
    for user in app.users:
        if user.gone:
            continue
        # Such a profile waits; one that is flagged has no excuse.
        unproven = set() if app.flag(user) else unnoticed
        refs = [
            (uid, url)
            for place, found in app.held(user).items()
            for uid, (_, url) in zip(user.places[place], found, strict=True)
        ]
        for uid, url in refs:
            if uid not in unproven and url.startswith(app.servers.source_base) != (uid in bad):
                yield Broken(7, f"user {user.id_}: {url} should {'not ' if uid in bad else ''}have moved")
            elif uid not in bad | unproven and app.fetch(url) != app.body(uid):
                yield Broken(2, f"user {user.id_}: {url} is not the newest version of {uid}")
        moved = [uid for uid, _ in refs if uid in app.blobs]
        if moved and app.flag(user) == bool(user.page or set(moved) & (bad | unproven)):
            yield Broken(5, f"user {user.id_}: flagged is {app.flag(user)}, with {refs}")
    for uid, etag in app.blobs.items():
        if uid not in app.missing and app.source_etag(uid) != etag:
            yield Broken(4, f"{uid} was changed at the source")


def _copied_unnoticed(app: App) -> set[str]:
    """Photos of which a run, cut off before it could note it, made a copy, and that were written over before the next.

    Nobody can prove whose that copy is, so it stays; the profile waits, and an operator has to look.
    """
    return {
        uid
        for uid, version in app.versions.items()
        if version > 1
        and app.fetch(app.target_url(uid), archived=True) in [app.body(uid, older) for older in range(1, version)]
    }


def after_erasing(app: App, copied: Collection[str] = ()) -> Iterator[Broken]:
    """Nothing of ours is left that nobody refers to; and what there was before of what a text names is there.

    Args:
        app: the users.
        copied: URLs of all copies before.
    """
    copied = set(copied)
    unnoticed = {app.target_url(uid) for uid in _copied_unnoticed(app)}
    # Of what somebody archived, the reference waits at the source.
    needed = {uid for user in app.users if not user.gone for held in user.places.values() for uid in held}
    unnoticed |= {app.target_url(uid) for uid in app.archived() & needed}
    urls = {url.partition("?")[0] for user in app.users for found in app.held(user).values() for _, url in found}
    named = {app.target_url(uid) for user in app.users if not user.gone for uid in user.named}
    for url in named & copied:
        if app.fetch(url, archived=True) is None:
            yield Broken(13, f"{url} is gone, and a text names what it is the copy of")
    for key in app.objects():
        url = f"{app.servers.public_base_url}/{key}"
        if key not in app.planted and url not in urls | named and url not in unnoticed:
            yield Broken(0, f"{key} is left, and nobody refers to it")


def after_rollback(app: App) -> Iterator[Broken]:
    """All is as if nothing had been migrated."""
    yield from at_any_moment(app)
    for user in app.users:
        if user.gone:
            continue
        if app.flag(user):
            yield Broken(10, f"user {user.id_} is flagged after a rollback")
        for place, found in app.held(user).items():
            for uid, (_, url) in zip(user.places[place], found, strict=True):
                # What was written over at the source since it was copied is reported, and stays.
                if (
                    uid in app.blobs
                    and uid not in app.replaced
                    and url != app.source_url(uid)
                    and app.fetch(url) == app.body(uid)
                ):
                    yield Broken(10, f"user {user.id_}, {place}: {url} did not go back")
