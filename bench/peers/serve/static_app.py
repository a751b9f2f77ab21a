"""WSGI application with a constant response, as large as a response of this project's server."""

from collections.abc import Callable, Iterable
from typing import Any

RESPONSE = b'{"predictions":[' + b",".join([b"[0.12345678]"] * 10) + b"]}"

MAX_UNREAD_BYTES = 50_000
"""The size up to which a request body may stay unread. If a larger body is not read, the connection breaks."""


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if int(environ.get("CONTENT_LENGTH", "0")) > MAX_UNREAD_BYTES:
        environ["wsgi.input"].read()
    start_response("200 OK", [("content-type", "application/json")])
    return [RESPONSE]
