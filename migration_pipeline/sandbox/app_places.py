"""Where the sandbox's app lives, how large it is, and what the migration is told of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

from migration_pipeline.sandbox.photo_files import CONTAINERS, PHOTOS

ALIAS_HOST = "img.example.com"
"""A CDN's host in front of the container of photos; nothing answers there."""
REGION = "us-east-1"


class Servers(Protocol):
    """What the app has to know of running servers; secrets are in the environment that goes with them."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables for the migration's processes."""

    @property
    def azure_account_url(self) -> str:
        """The account's blob endpoint."""

    @property
    def s3_endpoint_url(self) -> str:
        """Where S3's protocol is spoken."""

    @property
    def bucket(self) -> str:
        """The target's bucket."""

    @property
    def public_base_url(self) -> str:
        """Where everybody may GET the bucket's objects."""

    @property
    def database_url(self) -> str:
        """The app's database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppStores:
    """The servers that the app is made in.

    Attributes:
        account_url: the Azure account's blob endpoint, `http://127.0.0.1:10000/devstoreaccount1` say.
        public_base_url: what references to S3 start with.
        s3_access_key: `None` for AWS's default chain; so for the secret.
        firestore_project: `None` for an app without Firebase.
        firestore_host: the emulator's `host:port`. There is no default: this app goes into no real project.
    """

    database_url: str = field(repr=False)
    account_url: str
    account_key: str = field(repr=False)
    s3_endpoint_url: str
    bucket: str
    public_base_url: str
    s3_access_key: str | None = field(default=None, repr=False)
    s3_secret_key: str | None = field(default=None, repr=False)
    firestore_project: str | None = None
    firestore_host: str | None = None

    def __post_init__(self) -> None:
        if self.firestore_project is not None and not self.firestore_host:
            raise ValueError("firestore_project needs firestore_host, the emulator's host:port")

    @classmethod
    def on(cls, servers: Servers, *, firestore_project: str | None = "demo") -> Self:
        """The stores of running servers; `None` for the project makes an app without Firebase."""
        environment = servers.environment
        return cls(
            database_url=servers.database_url,
            account_url=servers.azure_account_url,
            account_key=environment["AZURE_STORAGE_KEY"],
            s3_endpoint_url=servers.s3_endpoint_url,
            bucket=servers.bucket,
            public_base_url=servers.public_base_url,
            s3_access_key=environment["AWS_ACCESS_KEY_ID"],
            s3_secret_key=environment["AWS_SECRET_ACCESS_KEY"],
            firestore_project=firestore_project,
            firestore_host=environment["FIRESTORE_EMULATOR_HOST"] if firestore_project else None,
        )

    @property
    def account_name(self) -> str:
        """The account that the URL names."""
        return self.account_url.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSize:
    """How large the app is, and what it is drawn from.

    Attributes:
        profiles: rows of the profiles table; 60 bring every kind.
        photos_per_profile: the mean; every photo is six files.
        seed: the same seed makes the same app.
        scale: factor on the files' sizes; small ones make fast tests.
        bad_files: false for an app of which every file can be copied.
    """

    profiles: int = 200
    photos_per_profile: float = 4.8
    seed: int = 7
    id_type: Literal["bigint", "uuid"] = "bigint"
    scale: float = 1.0
    bad_files: bool = True


def settings_toml(stores: AppStores, size: AppSize, *, profiles_per_range: int | None = None) -> str:
    """The text of `migration.toml` for this app; by default the planner makes some four ranges of it."""
    per_range = profiles_per_range or max(5, -(-size.profiles // 4))
    # A JSON string is a TOML basic string as well.
    text = json.dumps
    firebase = (
        f'kind = "firestore"\nproject_id = {text(stores.firestore_project)}\n'
        'document = "profiles/{id}"\nfields = ["photos"]'
        if stores.firestore_project
        else 'kind = "none"'
    )
    return f"""\
[source]
account_url = {text(stores.account_url)}
containers = {text(CONTAINERS)}
alias_hosts = {{ {text(ALIAS_HOST)} = {text(PHOTOS)} }}
query = "drop"

[target]
bucket = {text(stores.bucket)}
region = {text(REGION)}
public_base_url = {text(stores.public_base_url)}
endpoint_url = {text(stores.s3_endpoint_url)}

[database]
related = [{{ table = "verifications", profile_id = "profile_id", id = "id", columns = ["photo_url"] }}]

[database.profiles]
table = "profiles"
id = "id"
columns = ["photos"]
deleted_at = "deleted_at"
migrated_at = "photos_migrated_at"

[firebase]
{firebase}

[plan]
profiles_per_range = {per_range}
"""
