"""Buckets in host names, such as `bucket.localhost` and `bucket.s3.localhost`."""

from urllib.parse import quote

from werkzeug import Request

from microjobs_orchestrator.local.protocols.http import get_headers, get_target

LOCALHOST = ".localhost"


def bucket_of_host(host: str) -> str:
    """Return the bucket that a Host header names; empty if the bucket is in the path."""
    name = host.rpartition(":")[0] or host
    bucket = name.removesuffix(LOCALHOST).removesuffix(".s3") if name.endswith(LOCALHOST) else ""
    return "" if bucket == "s3" else bucket


def move_bucket_to_path(request: Request) -> None:
    """Put the bucket of the host in front of the path, where S3's model has it."""
    if bucket := bucket_of_host(get_headers(request).get("host", "")):
        path, query = get_target(request)
        request.environ["REQUEST_URI"] = f"/{quote(bucket)}{path}{'?' if query else ''}{query}"
