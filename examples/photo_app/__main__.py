"""Serves the app on 127.0.0.1.

python -m examples.photo_app                # on your own stores, described by environment variables
python -m examples.photo_app --sandbox      # on servers that are started for it, with made-up profiles
"""

import argparse
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from examples.photo_app.app import create_app
from examples.photo_app.photos import Photos
from migration_pipeline.uploads import from_environment

_PROFILES = 12


def main() -> None:
    """Parse, and serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--sandbox", action="store_true", help="start servers, and fill them")
    parser.add_argument("--switch", help="before, after, or a moment; instead of UPLOADS_SWITCH")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the sandbox is taken down, too
    with ExitStack() as stack:
        environment: Mapping[str, str] = os.environ
        if given.sandbox:
            environment = stack.enter_context(sandbox_environment(f"http://127.0.0.1:{given.port}"))
        if given.switch:
            environment = {**environment, "UPLOADS_SWITCH": given.switch}
        uploads = from_environment(environment)
        uploads.check_clock()
        secret = environment.get("PHOTO_APP_SECRET") or secrets.token_hex(32)
        app = create_app(uploads, Photos(environment["DATABASE_URL"]), secret=secret)
        app.run(host="127.0.0.1", port=given.port)


@contextmanager
def sandbox_environment(origin: str) -> Iterator[dict[str, str]]:
    """Stores with a made-up app in them, which take uploads from the origin's pages."""
    import boto3  # noqa: PLC0415 - on your own stores none of this is needed
    from azure.storage.blob import BlobServiceClient, CorsRule  # noqa: PLC0415 - as above

    from migration_pipeline.sandbox import Sandbox  # noqa: PLC0415 - as above
    from migration_pipeline.sandbox.app import REGION, AppSize, AppStores, create_app  # noqa: PLC0415 - as above
    from migration_pipeline.uploads.cors import azure_cors, s3_cors  # noqa: PLC0415 - as above

    with Sandbox() as servers:
        os.environ.update(servers.environment)  # boto3 finds its credentials there
        made = create_app(AppStores.on(servers), AppSize(profiles=_PROFILES, scale=0.1))
        client = boto3.client("s3", endpoint_url=servers.s3_endpoint_url, region_name=REGION)
        client.put_bucket_cors(Bucket=servers.bucket, CORSConfiguration=s3_cors([origin]))
        with BlobServiceClient(servers.azure_account_url, servers.environment["AZURE_STORAGE_KEY"]) as account:
            account.set_service_properties(cors=[CorsRule(**azure_cors([origin]))])
        print(f"Profiles: {', '.join(str(profile) for profile in made.expected)}", flush=True)  # noqa: T201 - for the terminal
        yield {
            "UPLOADS_SWITCH": "after",
            "UPLOADS_S3_BUCKET": servers.bucket,
            "UPLOADS_S3_REGION": REGION,
            "UPLOADS_S3_ENDPOINT_URL": servers.s3_endpoint_url,
            "UPLOADS_S3_PUBLIC_BASE_URL": servers.public_base_url,
            "UPLOADS_AZURE_ACCOUNT_URL": servers.azure_account_url,
            "UPLOADS_AZURE_CONTAINER": "photos",
            **servers.environment,
        }


if __name__ == "__main__":
    main()
