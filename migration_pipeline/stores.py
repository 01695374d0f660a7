"""The composition root: opens the stores that the settings name."""

import hashlib
import json
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from datetime import datetime
from typing import TypeVar

from migration_pipeline.adapters.azure.blob import AzureBlobSource
from migration_pipeline.adapters.azure.listing import AzureListing
from migration_pipeline.adapters.azure.probe import AzureBlobProbe
from migration_pipeline.adapters.azure.removal import AzureBlobRemoval
from migration_pipeline.adapters.azure.sign_in import AzureCredentials, given_sas_ends
from migration_pipeline.adapters.firebase.no_documents import NoDocuments
from migration_pipeline.adapters.firebase.write_rate import WriteRate
from migration_pipeline.adapters.http.network import Network
from migration_pipeline.adapters.ledger.postgres_ledger import PostgresLedger
from migration_pipeline.adapters.postgres.checks import looked_up
from migration_pipeline.adapters.postgres.pause_query import PauseQuery
from migration_pipeline.adapters.postgres.probe import PostgresProbe
from migration_pipeline.adapters.postgres.profiles import PostgresProfiles
from migration_pipeline.adapters.postgres.tables import ProfileTable, RelatedTable
from migration_pipeline.adapters.s3.access import Bucket
from migration_pipeline.adapters.s3.headers import StoreAs
from migration_pipeline.adapters.s3.probe import S3Probe
from migration_pipeline.adapters.s3.target import S3Target
from migration_pipeline.adapters.s3.write_path import S3WritePath
from migration_pipeline.core.control import Breaker, Limits, StandingOrders, Windows, parse_windows
from migration_pipeline.core.copy_file import CopyLimits
from migration_pipeline.core.errors import Fatal, SettingsError
from migration_pipeline.core.estimate import Prices
from migration_pipeline.core.migrate import Stores
from migration_pipeline.core.model import SourceFile
from migration_pipeline.core.plan import RangeSize
from migration_pipeline.core.ports import DocumentStore, SourceStore, TargetStore
from migration_pipeline.core.queries import Query
from migration_pipeline.core.removal_ports import How
from migration_pipeline.core.texts import Form
from migration_pipeline.core.urls import KeyTemplate, UrlKind, UrlRules
from migration_pipeline.event_loop import run
from migration_pipeline.settings import Settings
from migration_pipeline.settings.sections import TextColumn

_Profiles = TypeVar("_Profiles", bound=PostgresProfiles)
_Source = TypeVar("_Source", bound=AzureBlobSource)
_Target = TypeVar("_Target", bound=S3Target)
_PROBE_SECONDS = 10  # what is asked is small


def url_rules(settings: Settings) -> UrlRules:
    """The rules for the configured stores.

    Raises:
        SettingsError: the key template may give two blobs one key, or the target's URLs look like the source's.
    """
    keys = KeyTemplate(settings.target.prefix, settings.target.key_template)
    keys.check(settings.source.containers)
    for host, container in settings.source.alias_hosts.items():
        if container not in (*settings.source.containers, "*"):
            raise SettingsError(
                f"{host!r} serves container {container!r}, which does not move.",
                setting="source.alias_hosts",
                remedy='Name one of source.containers, or "*" where its URLs name the container.',
            )
    rules = _rules(settings, keys)
    probe = rules.classify(f"{settings.target.public_base_url}/probe")
    if probe is None or probe.kind is not UrlKind.TARGET:
        raise SettingsError(
            "new references would look like references to the source.",
            setting="target.public_base_url",
            remedy="Give S3 a host of its own: one host cannot serve both stores during the migration.",
        )
    return rules


def _rules(settings: Settings, keys: KeyTemplate) -> UrlRules:
    return UrlRules(
        account_url=settings.source.account_url,
        containers=settings.source.containers,
        alias_hosts=settings.source.alias_hosts,
        public_base_url=settings.target.public_base_url,
        other_target_urls=bucket_urls(settings),
        keys=keys,
        query=Query(settings.source.query),
    )


def orphan_rules(settings: Settings) -> UrlRules:
    """The rules by which orphans get their keys: under a prefix of their own.

    Raises:
        SettingsError: the prefix does not keep them apart from the files that somebody refers to.
    """
    usual, prefix = url_rules(settings), settings.inventory.orphan_prefix
    rules = _rules(settings, KeyTemplate(prefix + settings.target.prefix, settings.target.key_template))
    for container in settings.source.containers:
        file = SourceFile(container, "probe")
        if usual.file_of(rules.key_of(file)) is not None:
            raise SettingsError(
                f"{prefix!r} could be the beginning of a file's own key.",
                setting="inventory.orphan_prefix",
                remedy="Choose one that no key begins with, or give target.prefix a value.",
            )
    return rules


def open_ledger(settings: Settings, *, create: bool = False) -> PostgresLedger:
    """The ledger, up to date; one that is not there yet reads as empty, unless it is to be created."""
    url = settings.secrets.ledger_url.get_secret_value()
    return PostgresLedger(url, settings.ledger.schema_name, create=create)


def open_profiles(settings: Settings) -> PostgresProfiles:
    """The app's database."""
    return _open(PostgresProfiles, settings)


def open_index(settings: Settings) -> PostgresProbe:
    """The app's database, for planning and for `doctor`."""
    return _open(PostgresProbe, settings)


def look_up(settings: Settings) -> list[Fatal]:
    """What the app's database says against the settings that describe it; nothing else is opened with these."""
    return looked_up(settings.secrets.database_url.get_secret_value(), *_tables(settings))


def _open(kind: type[_Profiles], settings: Settings) -> _Profiles:
    profiles, related = _tables(settings)
    return kind(
        settings.secrets.database_url.get_secret_value(),
        profiles=profiles,
        related=related,
        ledger_schema=settings.ledger.schema_name if _ledger_is_beside(settings) else None,
    )


def _tables(settings: Settings) -> tuple[ProfileTable, list[RelatedTable]]:
    one = settings.database.profiles
    return (
        ProfileTable(
            one.table,
            one.id,
            names(one.columns),
            one.migrated_at,
            one.deleted_at,
            one.updated_at,
            one.deleted,
            one.deleted_values,
            forms(one.columns),
        ),
        [
            RelatedTable(o.table, o.profile_id, names(o.columns), o.id, o.updated_at, forms(o.columns))
            for o in settings.database.related
        ],
    )


def _ledger_is_beside(settings: Settings) -> bool:
    """Whether the ledger is in the app's own database."""
    secrets = settings.secrets
    return secrets.ledger_url.get_secret_value() == secrets.database_url.get_secret_value()


def names(columns: Sequence[str | TextColumn]) -> list[str]:
    """What these columns or fields are called."""
    return [column if isinstance(column, str) else column.name for column in columns]


def forms(columns: Sequence[str | TextColumn]) -> dict[str, Form]:
    """How the strings of those are read that do not simply hold URLs."""
    return {
        column.name: Form(column.embedded, column.base, column.repoint)
        for column in columns
        if not isinstance(column, str)
    }


@contextmanager
def open_documents(settings: Settings) -> Iterator[DocumentStore]:
    """The app's documents, if it has any."""
    if settings.firebase.kind == "none":
        yield NoDocuments()
        return
    firebase = settings.firebase
    # Each worker has its share: together they must not go beyond what the store was promised.
    writes = WriteRate(firebase.writes_per_second / settings.control.workers)
    # Imported here: 0.35 s of Google's libraries.
    if firebase.kind == "realtime_database":
        from migration_pipeline.adapters.firebase.realtime_database import RealtimeDatabaseDocuments  # noqa: PLC0415

        url = firebase.database_url or ""
        with closing(
            RealtimeDatabaseDocuments(
                firebase.project_id, url, firebase.document, names(firebase.fields), writes, forms(firebase.fields)
            )
        ) as nodes:
            yield nodes
        return
    from migration_pipeline.adapters.firebase.firestore import FirestoreDocuments  # noqa: PLC0415

    fields = firebase.fields
    with closing(
        FirestoreDocuments(
            firebase.project_id,
            firebase.document,
            names(fields),
            writes,
            database=firebase.database,
            forms=forms(fields),
        )
    ) as documents:
        yield documents


@asynccontextmanager
async def open_byte_stores(settings: Settings) -> AsyncIterator[tuple[SourceStore, TargetStore]]:
    """Source and target, within the running event loop."""
    async with open_source(settings) as source, open_target(settings) as target:
        yield source, target


def open_source(settings: Settings) -> AzureBlobSource:
    """The source, to be entered in an event loop."""
    return _open_source(AzureBlobSource, settings)


def open_source_probe(settings: Settings) -> AzureBlobProbe:
    """The source, for planning and for `doctor`."""
    return _open_source(AzureBlobProbe, settings)


def open_removal(settings: Settings) -> AzureBlobRemoval:
    """The source with the right to remove from it, to be entered in an event loop."""
    source, timeout = settings.source, settings.copy_.timeout_seconds
    how = How(settings.decommission.how)
    return AzureBlobRemoval(
        source.account_url,
        source.containers,
        _credentials(settings),
        how,
        timeout=timeout,
        network=network_of(settings),
    )


def network_of(settings: Settings) -> Network:
    """The way to every store.

    Raises:
        SettingsError: the bundle of certificate authorities cannot be read.
    """
    network = Network.of_environment(settings.network.ca_bundle)
    network.tell_the_others()
    return network


def _open_source(kind: type[_Source], settings: Settings) -> _Source:
    source, timeout = settings.source, settings.copy_.timeout_seconds
    network = network_of(settings)
    return kind(source.account_url, source.containers, _credentials(settings), timeout=timeout, network=network)


def _credentials(settings: Settings) -> AzureCredentials:
    secrets = settings.secrets
    auth = settings.source.auth or ("sas" if secrets.azure_sas else "key")
    return AzureCredentials(
        account_key=secrets.azure_key.get_secret_value() if auth == "key" and secrets.azure_key else None,
        sas_token=secrets.azure_sas.get_secret_value() if auth == "sas" and secrets.azure_sas else None,
        entra=auth == "entra",
        account_name=settings.source.account_name,
    )


def sas_ends(settings: Settings) -> datetime | None:
    """When the SAS that the operator made ends; `None` where there is none, or it does not say so.

    Raises:
        SettingsError: it is none.
    """
    given = _credentials(settings).sas_token
    return given_sas_ends(given, settings.source.containers) if given else None


def open_listing(settings: Settings) -> AzureListing:
    """The source, for listing what it holds."""
    copy = settings.copy_
    return AzureListing(
        settings.source.account_url,
        _credentials(settings),
        timeout=copy.timeout_seconds,
        patience=copy.patience_seconds,
        network=network_of(settings),
    )


def what_refers(settings: Settings) -> str:
    """Tells settings apart under which other things would be references, or other files meant by them."""
    parts = settings.model_dump(
        mode="json",
        include={
            "source": True,
            "target": {"bucket", "region", "prefix", "key_template", "public_base_url", "endpoint_url"},
            "database": True,
            "firebase": {"kind", "project_id", "database", "database_url", "document", "fields"},
        },
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def open_target(settings: Settings) -> S3Target:
    """The target, to be entered in an event loop."""
    return _open_target(S3Target, settings)


def open_target_probe(settings: Settings) -> S3Probe:
    """The target, for `doctor`."""
    return _open_target(S3Probe, settings)


def open_write_path(settings: Settings) -> S3WritePath:
    """The target, for `doctor --write-path`."""
    return _open_target(S3WritePath, settings, most_seconds=_PROBE_SECONDS)


def _open_target(kind: type[_Target], settings: Settings, most_seconds: float = math.inf) -> _Target:
    bucket = Bucket(settings.target.bucket, settings.target.region, settings.target.endpoint_url)
    target = settings.target
    store_as = StoreAs(target.storage_class, target.encryption, target.kms_key_id, target.tags)
    timeout = min(settings.copy_.timeout_seconds, most_seconds)
    return kind(bucket, store_as=store_as, timeout=timeout, network=network_of(settings))


@contextmanager
def open_stores(settings: Settings) -> Iterator[Stores]:
    """Everything that migrating a range talks to."""
    with ExitStack() as stack:
        yield Stores(
            open_byte_stores=lambda: open_byte_stores(settings),
            profiles=stack.enter_context(closing(open_profiles(settings))),
            documents=stack.enter_context(open_documents(settings)),
            ledger=stack.enter_context(closing(open_ledger(settings, create=True))),
            urls=url_rules(settings),
            run=run,
            standing=stack.enter_context(standing_orders(settings)),
        )


@contextmanager
def standing_orders(settings: Settings) -> Iterator[StandingOrders]:
    """When runs may work, and how hard, as the settings say.

    Raises:
        SettingsError: a window or the time zone is none.
    """
    control, copy = settings.control, settings.copy_
    with ExitStack() as stack:
        said: Callable[[], str | None] = lambda: None  # noqa: E731 - says nothing
        if control.pause_while is not None:
            url = settings.secrets.database_url.get_secret_value()
            said = stack.enter_context(closing(PauseQuery(url, control.pause_while)))
        yield StandingOrders(
            Limits(copy.in_flight, copy.requests_per_second, copy.bytes_per_second),
            windows(settings),
            Breaker(control.breaker_files, control.breaker_share),
            said,
        )


def windows(settings: Settings) -> Windows:
    """When runs may work.

    Raises:
        SettingsError: a window or the time zone is none.
    """
    try:
        return parse_windows(settings.control.windows, settings.control.time_zone)
    except ValueError as error:
        raise SettingsError(str(error), setting="control.windows, control.time_zone") from None


def copy_limits(settings: Settings) -> CopyLimits:
    """How hard to copy."""
    copy = settings.copy_
    return CopyLimits(
        in_flight=copy.in_flight,
        max_attempts=copy.max_attempts,
        patience=copy.patience_seconds,
        memory=copy.memory_megabytes * 1024 * 1024,
        requests_per_second=copy.requests_per_second,
        bytes_per_second=copy.bytes_per_second,
        read_back=copy.read_back,
        guess_content_type=copy.guess_content_type,
    )


def charged(settings: Settings) -> Prices:
    """What the stores charge, and what processors cost."""
    prices = settings.prices
    return Prices(
        prices.source_reads_per_10000,
        prices.source_egress_per_gigabyte,
        prices.target_writes_per_1000,
        prices.target_storage_per_gigabyte_month,
        prices.compute_per_vcpu_hour,
        prices.currency,
    )


def range_size(settings: Settings) -> RangeSize:
    """How large ranges are to be."""
    return RangeSize(settings.plan.profiles_per_range, settings.plan.files_per_range, settings.plan.ranges)


def bucket_urls(settings: Settings) -> list[str]:
    """The store's own URLs of the bucket: Amazon S3 User Guide, "Methods for accessing a general purpose bucket"."""
    bucket, region, endpoint = settings.target.bucket, settings.target.region, settings.target.endpoint_url
    if endpoint:
        return [f"{endpoint}/{bucket}"]
    hosts = (f"s3.{region}.amazonaws.com", "s3.amazonaws.com")
    return [url for host in hosts for url in (f"https://{bucket}.{host}", f"https://{host}/{bucket}")]
