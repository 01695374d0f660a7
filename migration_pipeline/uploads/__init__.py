"""Upload and download URLs for an app's user files, in Azure Blob Storage before a switch and in S3 after it.

This package is for the app, not for the migration: it imports boto3 and azure-storage-blob, each only where a store of
that kind is used, and nothing else that is not in Python's standard library. docs/uploads.md tells how to use it.
"""

from migration_pipeline.uploads.azure import AzureContainer, AzureUploads
from migration_pipeline.uploads.clocks import ClockSkewed
from migration_pipeline.uploads.configuration import from_environment
from migration_pipeline.uploads.errors import Misconfigured, NotConfirmed, Refused, StoreTrouble, UploadsError
from migration_pipeline.uploads.issuer import Uploads
from migration_pipeline.uploads.keys import KeyRules
from migration_pipeline.uploads.refusals import explain
from migration_pipeline.uploads.rules import Encryption, UploadRules, Wish
from migration_pipeline.uploads.s3 import S3Bucket, S3Uploads
from migration_pipeline.uploads.switch import Switch, SwitchedUploads
from migration_pipeline.uploads.tickets import Confirmed, FormTicket, PutTicket

__all__ = [
    "AzureContainer",
    "AzureUploads",
    "ClockSkewed",
    "Confirmed",
    "Encryption",
    "FormTicket",
    "KeyRules",
    "Misconfigured",
    "NotConfirmed",
    "PutTicket",
    "Refused",
    "S3Bucket",
    "S3Uploads",
    "StoreTrouble",
    "Switch",
    "SwitchedUploads",
    "UploadRules",
    "Uploads",
    "UploadsError",
    "Wish",
    "explain",
    "from_environment",
]
