"""A minimal server: a WSGI callable, `fast_codec` and the model."""

from collections.abc import Callable, Iterable
from typing import Any

import fast_codec
import model

session = model.load()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/ping":
        start_response("200 OK", [])
        return [b""]
    content_type = environ["CONTENT_TYPE"]
    body = fast_codec.predict_body(session, environ["wsgi.input"].read(), content_type)
    start_response("200 OK", [("content-type", content_type)])
    return [body]
