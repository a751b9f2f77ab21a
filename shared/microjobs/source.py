"""Access to a user's code at the address in a request: in S3, in a folder or in an archive.

This module needs only the standard library, and boto3 for addresses in S3.
"""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from microjobs.contract import Layout
from microjobs.errors import UserError

DEFAULT_REGION = "us-east-1"
"""The region for the first request, if no variable names a region. S3 redirects the request to the bucket's region."""
CONNECT_SECONDS = 10
ATTEMPTS = 3


def locate(
    layout: Layout, uri: str, setting: str, download_folder: Path, environ: Mapping[str, str] = os.environ
) -> Path:
    """Return the path of the folder or archive at an address. An archive in S3 is downloaded.

    Args:
        uri: an S3 address, a path, or `file://` and a path. The path may start with the contract's root.
        setting: the name of the user's setting that contains the address, for error messages.
        download_folder: the folder for the download.

    Raises:
        UserError: the address does not exist, or the download failed.
    """
    if uri.startswith("s3://"):
        return _download(uri, setting, download_folder, environ)
    path = layout.resolve_local_path(uri.removeprefix("file://"))
    if not path.exists():
        raise UserError(f"{setting} {uri!r} does not exist: use a folder, a .tar.gz file or an S3 address")
    return path


def _download(uri: str, setting: str, download_folder: Path, environ: Mapping[str, str]) -> Path:
    bucket, key = urlsplit(uri).netloc, urlsplit(uri).path.lstrip("/")
    if not bucket or not key or key.endswith("/"):
        raise UserError(
            f"{setting} {uri!r} is not the address of an object: use one such as s3://bucket/sourcedir.tar.gz"
        )
    try:
        boto3 = importlib.import_module("boto3")
        exceptions = importlib.import_module("botocore.exceptions")
        config_class = importlib.import_module("botocore.config").Config
    except ModuleNotFoundError as error:
        raise UserError(f"{setting} {uri!r} cannot be fetched: this image has no boto3 ({error})") from error
    target = download_folder / key.rpartition("/")[2]
    try:
        client = boto3.client(
            "s3",
            region_name=environ.get("SAGEMAKER_REGION") or environ.get("AWS_REGION") or DEFAULT_REGION,
            endpoint_url=environ.get("S3_ENDPOINT_URL"),
            config=config_class(connect_timeout=CONNECT_SECONDS, retries={"total_max_attempts": ATTEMPTS}),
        )
        client.download_file(bucket, key, str(target))
    except (exceptions.BotoCoreError, exceptions.ClientError, ValueError) as error:
        message = f"{setting} {uri!r} cannot be fetched: {error}"
        if isinstance(error, exceptions.NoCredentialsError | exceptions.ConnectionError | exceptions.HTTPClientError):
            message += ". Code in S3 needs a network, which EnableNetworkIsolation forbids"
        raise UserError(message) from error
    return target
