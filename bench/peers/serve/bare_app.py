"""A minimal server: a WSGI callable, the fast parser and the model."""

from collections.abc import Callable, Iterable
from typing import Any

import fast_parser
import model

session = model.load()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/ping":
        start_response("200 OK", [])
        return [b""]
    content_type = environ["CONTENT_TYPE"]
    body = fast_parser.answer(session, environ["wsgi.input"].read(), content_type)
    start_response("200 OK", [("content-type", content_type)])
    return [body]
