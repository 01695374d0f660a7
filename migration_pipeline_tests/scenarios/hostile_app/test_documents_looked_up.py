"""What settings say of the app's documents."""

from pathlib import Path
from uuid import uuid4

import google.cloud.firestore
import pytest
from google.auth.credentials import AnonymousCredentials

from migration_pipeline.adapters.firebase.firestore import FirestoreDocuments
from migration_pipeline.adapters.firebase.write_rate import WriteRate
from migration_pipeline.core.errors import SettingsError
from migration_pipeline.core.ports import Fence
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.settings import Settings, load
from migration_pipeline_tests.replacing import whole

EXAMPLE = Path(__file__).parents[3] / "migration.example.toml"
OURS = Fence("range", 1, 1, lambda: None)


def settings(document: str, **more: str) -> Settings:
    return load(
        {
            "MIGRATION_CONFIG": str(EXAMPLE),
            "DATABASE_URL": "postgresql://a@127.0.0.1/a",
            "AZURE_STORAGE_KEY": "eA==",
            "MIGRATION_FIREBASE__DOCUMENT": document,
            **more,
        }
    )


@pytest.mark.parametrize(
    "document",
    ["profiles", "profiles/id", "profiles/{uid}", "/profiles/{id}", "profiles/{id}/", "a//{id}/b", "a/{id}/{id}",
     "profiles/{id}/photos", "profiles/x{id}", "profiles/{id}/{n}/x", ""],
)  # fmt: skip
def test_a_template_that_names_no_document_is_refused(document: str) -> None:
    with pytest.raises(SettingsError, match=r"firebase\.document"):
        settings(document)


def test_templates_that_name_a_document_are_taken() -> None:
    for document in ("profiles/{id}", "users/{id}/public/profile"):
        assert settings(document).firebase.document == document
    tree = {
        "MIGRATION_FIREBASE__KIND": "realtime_database",
        "MIGRATION_FIREBASE__DATABASE_URL": "https://a.example.com",
    }
    assert settings("users/{id}/photos", **tree).firebase.document == "users/{id}/photos"
    with pytest.raises(SettingsError, match=r"firebase\.database: is for Firestore"):
        settings("users/{id}", MIGRATION_FIREBASE__DATABASE="media", **tree)


def test_documents_of_a_named_database(sandbox: Sandbox) -> None:
    assert sandbox.environment["FIRESTORE_EMULATOR_HOST"]
    project = f"p-{uuid4().hex[:12]}"
    default, media = (
        google.cloud.firestore.Client(project=project, credentials=AnonymousCredentials(), database=name)
        for name in (None, "media")
    )
    try:
        for client in (default, media):
            client.document("profiles/1").set({"photos": ["old://1"]})
        documents = FirestoreDocuments(
            project, "profiles/{id}", ["photos", "cover.url"], WriteRate(1000), database="media"
        )
        try:
            assert documents.without([1, 2]) == ["cover.url"]
            assert documents.without([2]) == []
            done = documents.rewrite([1, 2], lambda _: whole(lambda text: text.replace("old", "new")), OURS)
        finally:
            documents.close()
        assert done.urls == 1
        assert media.document("profiles/1").get().to_dict() == {"photos": ["new://1"]}
        assert default.document("profiles/1").get().to_dict() == {"photos": ["old://1"]}
    finally:
        default.close()
        media.close()
