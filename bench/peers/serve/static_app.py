"""A static answer of our answer's size, from the server that serves ours."""

from collections.abc import Callable, Iterable
from typing import Any

ANSWER = b'{"predictions":[' + b",".join([b"[0.12345678]"] * 10) + b"]}"


LARGE = 50_000
"""Bytes of a body that has to be read, or the connection breaks."""


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if int(environ.get("CONTENT_LENGTH", "0")) > LARGE:
        environ["wsgi.input"].read()
    start_response("200 OK", [("content-type", "application/json")])
    return [ANSWER]
