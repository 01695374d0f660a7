"""What the stores must be told so that browsers may upload from the app's pages."""

from collections.abc import Sequence
from typing import Any

_MINUTES_REMEMBERED = 60


def s3_cors(origins: Sequence[str]) -> dict[str, Any]:
    """A bucket's CORS configuration, as `put_bucket_cors` and `aws s3api put-bucket-cors` take it."""
    return {
        "CORSRules": [
            {
                "ID": "uploads",
                "AllowedOrigins": list(origins),
                "AllowedMethods": ["PUT", "POST", "GET", "HEAD"],
                "AllowedHeaders": ["content-type", "if-none-match", "cache-control", "x-amz-*"],
                "ExposeHeaders": ["ETag"],
                "MaxAgeSeconds": _MINUTES_REMEMBERED * 60,
            }
        ]
    }


def azure_cors(origins: Sequence[str]) -> dict[str, Any]:
    """An account's CORS rule, by the names of azure-storage-blob's `CorsRule`."""
    return {
        "allowed_origins": list(origins),
        "allowed_methods": ["PUT", "GET", "HEAD"],
        "allowed_headers": ["content-type", "content-md5", "x-ms-*"],
        "exposed_headers": ["etag"],
        "max_age_in_seconds": _MINUTES_REMEMBERED * 60,
    }
