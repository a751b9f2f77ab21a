"""The least code that answers: a WSGI callable, the fast parser, the model."""

from collections.abc import Callable, Iterable
from typing import Any

import fast
import model

session = model.load()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/ping":
        start_response("200 OK", [])
        return [b""]
    content_type = environ["CONTENT_TYPE"]
    body = fast.answer(session, environ["wsgi.input"].read(), content_type)
    start_response("200 OK", [("content-type", content_type)])
    return [body]
