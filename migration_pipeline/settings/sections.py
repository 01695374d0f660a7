"""The sections of `migration.toml`: every key, its default, and what it means."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr
from pydantic.functional_validators import AfterValidator


def _web_url(text: str) -> str:
    HttpUrl(text)
    return text.rstrip("/")


WebUrl = Annotated[str, AfterValidator(_web_url)]
Identifier = Annotated[str, Field(min_length=1)]
# Quoted wherever they are used; but the driver takes a % for a placeholder, within quotes too.
SqlName = Annotated[str, Field(pattern=r"^[^%\x00]+$")]


def _base_url(text: str) -> str:
    HttpUrl(text)
    return text


def _document_path(text: str) -> str:
    segments = text.split("/")
    if "" in segments:
        raise ValueError("begins or ends with a slash, or has two in a row: write profiles/{id}")
    if segments.count("{id}") != 1 or re.search(r"[{}]", text.replace("{id}", "")):
        raise ValueError("must hold {id} once, as a segment of its own, and no other braces: write profiles/{id}")
    return text


DocumentPath = Annotated[str, AfterValidator(_document_path)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextColumn(_Section):
    """A column, or a field of documents, that holds more than whole URLs, or less."""

    name: SqlName
    embedded: bool = False
    base: Annotated[str, AfterValidator(_base_url)] | None = None
    repoint: bool = False


Columns = Annotated[list[SqlName | TextColumn], Field(min_length=1)]


class Source(_Section):
    """Azure Blob Storage."""

    account_url: WebUrl = Field(description="The storage account's blob endpoint.")
    containers: Annotated[list[str], Field(min_length=1)] = Field(description="Containers that move.")
    auth: Literal["key", "sas", "entra"] | None = Field(
        default=None,
        description=(
            "How requests are signed: with the account's key, with SAS that you made, or as an identity of Microsoft "
            "Entra; by default with a SAS where one is set, else with the key."
        ),
    )
    account_name: Identifier | None = Field(
        default=None, description="The storage account's name, where `account_url` is a domain of your own."
    )
    alias_hosts: dict[str, str] = Field(
        default={},
        description=(
            "Hosts, of a CDN say, with a path where they serve more, and the container each serves; `*` for one whose "
            "URLs name the container first."
        ),
    )
    query: Literal["keep", "drop", "wait"] = Field(
        default="wait",
        description=(
            "What becomes of query strings and fragments when a reference is re-pointed: `keep`, `drop`, or `wait`, "
            "and the profile with it, for a decision. A SAS goes in any case."
        ),
    )


class Target(_Section):
    """AWS S3."""

    bucket: Identifier = Field(description="The bucket that files go to.")
    region: Identifier = Field(description="The bucket's region.")
    prefix: str = Field(default="", description="Put before every key.")
    key_template: str = Field(
        default="{container}/{blob}", description="The key; a slash stands between container and blob."
    )
    public_base_url: WebUrl = Field(
        description="What rewritten references start with; the key follows, percent-encoded."
    )
    endpoint_url: WebUrl | None = Field(default=None, description="For stores that speak S3's protocol elsewhere.")
    storage_class: Identifier | None = Field(default=None, description="Storage class of the copies, as in S3's API.")
    encryption: Literal["AES256", "aws:kms"] | None = Field(
        default=None, description="`AES256` (SSE-S3) or `aws:kms` (SSE-KMS)."
    )
    kms_key_id: Identifier | None = Field(default=None, description="Key for `aws:kms`.")
    tags: dict[str, str] = Field(default={}, max_length=10, description="Tags of every copy, ten at most.")


class ProfilesTable(_Section):
    """Names in the table of profiles."""

    table: SqlName = "profiles"
    id: SqlName = "id"
    columns: Columns = ["photos"]
    deleted_at: SqlName | None = None
    deleted: SqlName | None = None
    deleted_values: list[str] = []
    migrated_at: SqlName = "photos_migrated_at"
    updated_at: SqlName | None = None


class RelatedTable(_Section):
    """Names in a table whose rows belong to profiles and hold URLs too."""

    table: SqlName
    profile_id: SqlName
    id: SqlName | None = None
    columns: Columns
    updated_at: SqlName | None = None


class Database(_Section):
    """The app's Postgres."""

    profiles: ProfilesTable = Field(
        default=ProfilesTable(),
        description=(
            "The table of profiles: `table`, `id`, `columns`, `deleted_at` or `deleted` with `deleted_values`, "
            "`migrated_at`, `updated_at`."
        ),
    )
    related: list[RelatedTable] = Field(
        default=[], description="Further tables: `table`, `id`, `profile_id`, `columns`, `updated_at`."
    )


class Firebase(_Section):
    """The documents that clients read."""

    kind: Literal["firestore", "realtime_database", "none"] = Field(
        description="`firestore`, `realtime_database`, or `none` for apps without Firebase."
    )
    project_id: str = Field(default="", description="The Firebase project.")
    database: Identifier | None = Field(
        default=None, description="A named database of Firestore; without it, the project's `(default)`."
    )
    database_url: WebUrl | None = Field(
        default=None, description="Of the Realtime Database, `https://….firebaseio.com`."
    )
    writes_per_second: float = Field(
        default=500,
        gt=0,
        description=(
            "Documents written by all workers together, at most; each has its share (`control.workers`). "
            "Firestore asks to begin with 500 a second."
        ),
    )
    document: DocumentPath = Field(
        default="profiles/{id}", description="A document's path; `{id}` is the profile's id."
    )
    fields: Columns = Field(
        default=["photos"], description="Fields that hold URLs, like columns; dots reach into maps."
    )


class LedgerSection(_Section):
    """Where the migration keeps its own state."""

    schema_name: str = Field(
        default="migration",
        alias="schema",
        pattern=r"^[a-z_][a-z0-9_]*$",
        description="The Postgres schema that the migration keeps its own state in.",
    )


class Plan(_Section):
    """How ranges are cut."""

    profiles_per_range: int = Field(default=1000, ge=1, description="Profiles of one range at most.")
    files_per_range: int = Field(default=50_000, ge=1, description="Files of one range, by a sample, at most.")
    ranges: int = Field(
        default=5000, ge=1, description="About so many ranges at most; where there would be more, each holds more."
    )


class Copy(_Section):
    """How hard to copy."""

    in_flight: int = Field(default=64, ge=1, le=1024, description="Files copied at the same time by one run.")
    max_attempts: int = Field(default=5, ge=1, le=100, description="Tries per file and run before it is given up.")
    patience_seconds: int = Field(
        default=120,
        ge=0,
        description="How long tries of a file do not count that meet an overloaded or unreachable store.",
    )
    timeout_seconds: int = Field(
        default=60,
        ge=1,
        le=3600,
        description="Seconds of silence of the source, or of one upload to S3, before it is tried again.",
    )
    memory_megabytes: int = Field(
        default=64, ge=16, description="Bodies held in memory at the same time by one run, whatever the files' sizes."
    )
    requests_per_second: float | None = Field(
        default=None, gt=0, description="Requests to each store by all runs together, at most."
    )
    bytes_per_second: float | None = Field(
        default=None, gt=0, description="Read from the source by all runs together, at most."
    )
    read_back: Literal["never", "sampled", "always"] = Field(
        default="sampled",
        description=(
            "Which copies are read again from S3 and compared: `never`, `sampled` (one in a hundred), `always`."
        ),
    )
    guess_content_type: bool = Field(
        default=False,
        description=(
            "Gives files without a Content-Type, or with Azure's stopgap `application/octet-stream`, the one "
            "that their first bytes say, where these say one; such files are counted."
        ),
    )


class Sweep(_Section):
    """Looking for what came late."""

    profiles_per_sweep: int = Field(
        default=20_000, ge=1, description="Profiles looked at by one sweep, where no `updated_at` tells which."
    )


class Erase(_Section):
    """Removing copies that nobody refers to any more."""

    after_hours: float = Field(
        default=24, ge=0, description="How long nobody must have referred to a copy before it may be erased."
    )


class Control(_Section):
    """When runs work, how many, and what stops them."""

    workers: int = Field(default=2, ge=1, le=100, description="Ranges worked on at the same time; each is one process.")
    windows: list[str] = Field(
        default=[], description='When runs may work: `"mon-fri 22:00-06:00"`, `"sat,sun 00:00-24:00"`, `"01:00-05:00"`.'
    )
    time_zone: Identifier = Field(
        default="UTC", description="Of the windows and of the daily summary, `Europe/Berlin` for example."
    )
    pause_while: Identifier | None = Field(
        default=None,
        description=(
            "One statement on the app's database that reads, and gives one row with one boolean; runs pause "
            "while it is true. Anything else pauses them, too, and `status` says why."
        ),
    )
    breaker_files: int = Field(
        default=500, ge=1, description="Files that must have ended in ten minutes before the breaker may trip."
    )
    breaker_share: float = Field(
        default=0.2, gt=0, le=1, description="Share of them that must have failed for all runs to pause."
    )


class Alerts(_Section):
    """When somebody is told. Where to is a secret: ALERT_URLS."""

    ui_url: WebUrl | None = Field(default=None, description="The Dagster UI, for links in alerts.")
    daily_at: str = Field(
        default="08:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="When the daily summary is sent."
    )
    stalled_minutes: float = Field(
        default=15, gt=0, description="How long nothing must have moved before a backfill counts as stalled."
    )
    free_disk_gigabytes: float = Field(default=5, ge=0, description="Less room than that is told.")


class Prices(_Section):
    """What the stores charge, in one currency; for estimates."""

    source_reads_per_10000: float = Field(
        default=0.0044, ge=0, description="10,000 reads of the source; for estimates."
    )
    source_egress_per_gigabyte: float = Field(default=0.08, ge=0, description="A gigabyte out of the source.")
    target_writes_per_1000: float = Field(default=0.005, ge=0, description="1,000 writes to the target.")
    target_storage_per_gigabyte_month: float = Field(
        default=0.023, ge=0, description="A gigabyte in the target, a month."
    )
    compute_per_vcpu_hour: float = Field(default=0.04048, ge=0, description="An hour of one processor of the workers.")
    currency: str = Field(default="USD", min_length=1, max_length=8, description="What all prices are given in.")


class Inventory(_Section):
    """What the source holds."""

    orphans: Literal["leave", "list", "copy"] = Field(
        default="leave",
        description=(
            "Blobs that nobody refers to: only counted (`leave`), written to a file (`list`), or copied (`copy`)."
        ),
    )
    orphan_prefix: Identifier = Field(default="orphans/", description="Put before the keys of orphans that are copied.")
    orphan_after_hours: float = Field(
        default=24,
        ge=0,
        description=(
            "A blob that nobody refers to must be that old, to be called an orphan: an upload comes before "
            "its reference."
        ),
    )


class Cutover(_Section):
    """From the first upload to S3 to the last blob of the source: docs/cutover.md."""

    longest_upload_hours: float = Field(
        default=24, ge=0, description="How long an upload URL of the old store may be good for at the longest."
    )
    soak_days: float = Field(default=14, ge=0, description="How long the frozen source is kept before any blob goes.")


class Decommission(_Section):
    """Removing blobs of the source that are proven to be in S3."""

    how: Literal["delete", "archive"] = Field(
        default="delete", description="What becomes of a blob that is proven to be in S3: `delete`, or `archive`."
    )
    max_delete: int = Field(default=10_000, ge=0, description="Blobs removed by one run at most.")
    per_second: float = Field(default=50, gt=0, description="Blobs removed a second at most.")
    require_soft_delete: bool = Field(
        default=True, description="Refuse to delete while the account does not keep deleted blobs for some days."
    )


class Uploads(_Section):
    """How the app's clients upload to the target; for `doctor --write-path`."""

    origins: list[WebUrl] = Field(
        default=[], description="Web origins that upload from a browser; for `doctor --write-path`."
    )
    key_template: Identifier = Field(
        default="u/{profile}/{name}{extension}",
        description="How the app names new files; probe objects of `doctor --write-path` are named so.",
    )
    reads: Literal["public", "signed"] = Field(
        default="public",
        description=(
            "How clients read: `public`, under `target.public_base_url`, or `signed`, by URLs that the app signs."
        ),
    )


class Retention(_Section):
    """How long Dagster remembers what ended."""

    run_days: int = Field(
        default=30,
        ge=0,
        description=(
            "Days that Dagster keeps finished runs and their events; 0 for ever. The newest run of every "
            "asset and partition stays."
        ),
    )
    log_days: int = Field(default=30, ge=0, description="Days that runs' output on disk is kept; 0 for ever.")


class Metrics(_Section):
    """Figures for a monitoring system."""

    textfile: Path | None = Field(
        default=None, description="A `.prom` file, kept up to date for Prometheus's node exporter."
    )


class NetworkSection(_Section):
    """The way out of this machine. Proxies come from the usual variables: HTTPS_PROXY, HTTP_PROXY, NO_PROXY."""

    ca_bundle: Path | None = Field(
        default=None,
        description=(
            "A PEM file of certificate authorities to trust, for every client; else the first that is set of "
            "AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE."
        ),
    )


class Secrets(_Section):
    """From the environment alone."""

    database_url: SecretStr
    ledger_url: SecretStr
    azure_key: SecretStr | None = None
    azure_sas: SecretStr | None = None
    alert_urls: list[SecretStr] = []


class Settings(_Section):
    """Everything the migration is told."""

    source: Source
    target: Target
    database: Database = Database()
    firebase: Firebase
    ledger: LedgerSection = LedgerSection()
    plan: Plan = Plan()
    copy_: Copy = Field(default=Copy(), alias="copy")
    sweep: Sweep = Sweep()
    erase: Erase = Erase()
    control: Control = Control()
    alerts: Alerts = Alerts()
    prices: Prices = Prices()
    inventory: Inventory = Inventory()
    cutover: Cutover = Cutover()
    decommission: Decommission = Decommission()
    uploads: Uploads = Uploads()
    retention: Retention = Retention()
    metrics: Metrics = Metrics()
    network: NetworkSection = NetworkSection()
    secrets: Secrets
