"""Makes a believable living app in the sandbox's servers, the same for the same seed.

A table of profiles with photos in a JSON column, a table of verifications with one URL per row, a Firestore
document per profile, and the files of both in Azure: most of them ordinary, and every oddity at least once.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from migration_pipeline.sandbox.app_bytes import put_objects, upload
from migration_pipeline.sandbox.app_kinds import BAD_OUTCOMES, UNTOUCHED, Kind, end_of
from migration_pipeline.sandbox.app_places import ALIAS_HOST, REGION, AppSize, AppStores, settings_toml
from migration_pipeline.sandbox.app_plan import AppPlan, ProfileId, plan_app
from migration_pipeline.sandbox.app_records import fill_database, fill_firestore

__all__ = ["ALIAS_HOST", "REGION", "App", "AppSize", "AppStores", "Counts", "Kind", "create_app", "settings_toml"]


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is.

    Attributes:
        files: stored in Azure.
        bytes: of these files.
        wanted: files that undeleted profiles name in Azure, at either site: what a migration has to look at.
        references: URLs of these, at both sites, each place counted.
        documents: of Firestore.
    """

    profiles: int
    photos: int
    verifications: int
    documents: int
    files: int
    bytes: int
    wanted: int
    references: int


@dataclass(frozen=True, slots=True)
class App:
    """What was made, and what a migration must make of it.

    Attributes:
        kinds: profile ids of each kind, ascending as made.
        expected: what a finished migration says of each profile: migrated, waiting or untouched.
        bad_files: outcome → (profile, "container/blob") of every file that cannot be copied.
        secrets: signatures of all SAS in the app's URLs, decoded; they must show up in no log.
    """

    kinds: Mapping[Kind, Sequence[ProfileId]]
    expected: Mapping[ProfileId, str]
    bad_files: Mapping[str, Sequence[tuple[ProfileId, str]]]
    counts: Counts
    secrets: frozenset[str] = field(repr=False)


def create_app(stores: AppStores, size: AppSize | None = None, say: Callable[[str], None] | None = None) -> App:
    """Make the app in empty stores.

    Args:
        stores: the servers.
        size: how large; by default 200 profiles with some 5,700 files of 780 MB.
        say: told now and then how far it has come.

    Raises:
        psycopg.errors.DuplicateTable: the database holds an app already.
    """
    size, say = size or AppSize(), say or _silence
    plan = plan_app(stores, size)
    say(f"{len(plan.profiles):,} profiles with {len(plan.blobs):,} files")
    # Rows come first: a database that holds an app already refuses before anything else is written.
    fill_database(stores, size, plan)
    documents = fill_firestore(stores, plan) if stores.firestore_project else 0
    say(f"wrote {len(plan.profiles):,} rows and {documents:,} documents")
    put_objects(stores, plan.in_target(), plan.conflicting(), say)
    files, octets = upload(stores, plan.blobs.values(), say)
    return _described(plan, documents=documents, files=files, octets=octets)


def _silence(text: str) -> None:
    """Say nothing."""


def _described(plan: AppPlan, *, documents: int, files: int, octets: int) -> App:
    kinds: dict[Kind, list[ProfileId]] = defaultdict(list)
    bad: dict[str, list[tuple[ProfileId, str]]] = defaultdict(list)
    for profile in plan.profiles:
        kinds[profile.kind].append(profile.profile_id)
        if profile.bad is not None:
            bad[BAD_OUTCOMES[profile.kind]].append((profile.profile_id, str(profile.bad)))
    to_move = [profile for profile in plan.profiles if profile.kind not in UNTOUCHED]
    return App(
        kinds=dict(kinds),
        expected={profile.profile_id: end_of(profile.kind) for profile in plan.profiles},
        bad_files=dict(bad),
        counts=Counts(
            profiles=len(plan.profiles),
            photos=sum(len(profile.photos or ()) for profile in plan.profiles),
            verifications=sum(len(profile.verifications) for profile in plan.profiles),
            documents=documents,
            files=files,
            bytes=octets,
            wanted=len({str(blob) for profile in to_move for blob in profile.blobs}),
            references=sum(
                plan.references(profile, with_document=documents > 0 and profile.kind is not Kind.NO_DOCUMENT)
                for profile in to_move
            ),
        ),
        secrets=frozenset(plan.signatures),
    )
