"""Parts of an HTTP request as the client sent them: WSGI decodes paths and merges names of headers."""

from collections.abc import Mapping
from urllib.parse import quote

from werkzeug import Request

HEADERS = "microjobs.headers"
"""WSGI variable with all headers by name in lower case: WSGI has the same variable for `x-amz-meta-a_b` and
`x-amz-meta-a-b`."""

REQUEST_ID = "microjobs.request_id"
"""WSGI variable with the id of a request."""


def get_headers(request: Request) -> Mapping[str, str]:
    """Return the headers by name in lower case."""
    headers: Mapping[str, str] | None = request.environ.get(HEADERS)
    if headers is None:
        headers = request.environ[HEADERS] = {name.lower(): value for name, value in request.headers.items()}
    return headers


def get_target(request: Request) -> tuple[str, str]:
    """Return the path and the query string, both percent-encoded."""
    path, _, query = str(request.environ["REQUEST_URI"]).partition("?")
    if not path.startswith("/"):  # the target has the absolute form
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path, query


def get_virtual_bucket(request: Request) -> str:
    """Return the bucket in a host name such as `bucket.s3.localhost`; empty if the bucket is in the path."""
    host = get_headers(request).get("host", "")
    name = host.rpartition(":")[0] or host
    bucket = name.removesuffix(".localhost").removesuffix(".s3") if name.endswith(".localhost") else ""
    return "" if bucket == "s3" else bucket


def move_bucket_to_path(request: Request) -> None:
    """Put the bucket of the host name in front of the path, where S3's model expects it."""
    if bucket := get_virtual_bucket(request):
        path, query = get_target(request)
        request.environ["REQUEST_URI"] = f"/{quote(bucket)}{path}{'?' if query else ''}{query}"


def get_request_id(request: Request) -> str:
    return str(request.environ[REQUEST_ID])
