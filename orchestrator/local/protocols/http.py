"""Parts of an HTTP request as the client sent them: WSGI decodes paths and merges header names."""

from collections.abc import Mapping

from werkzeug import Request

HEADERS = "microjobs.headers"
"""WSGI variable with all headers under their own names: WSGI uses one variable for `x-amz-meta-a_b` and
`x-amz-meta-a-b`."""

LOWER_HEADERS = "microjobs.lower_headers"
"""WSGI variable with the same headers by their names in lower case, once `get_headers` was called."""

REQUEST_ID = "microjobs.request_id"
"""WSGI variable with the id of a request."""


def get_headers(request: Request) -> Mapping[str, str]:
    """Return the headers by their names in lower case."""
    headers: Mapping[str, str] | None = request.environ.get(LOWER_HEADERS)
    if headers is None:
        received = request.environ.get(HEADERS, request.headers)
        headers = {name.lower(): value for name, value in received.items()}
        request.environ[LOWER_HEADERS] = headers
    return headers


def get_target(request: Request) -> tuple[str, str]:
    """Return the path and the query string, both percent-encoded."""
    path, _, query = str(request.environ["REQUEST_URI"]).partition("?")
    if not path.startswith("/"):  # the absolute form of a target
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path, query


def get_request_id(request: Request) -> str:
    return str(request.environ[REQUEST_ID])
