"""The types of the responses that interceptors of the gateway return. Each response is a WSGI application."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from werkzeug import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_LINE_END = re.compile("[\r\n]")


class CompleteResponse:
    """A response with the status 200 whose body is bytes. A response of werkzeug takes several times longer to make and
    send.

    Args:
        headers: they may state another length, for HEAD requests.

    Raises:
        ValueError: the value of a header has several lines.
    """

    def __init__(self, body: bytes, headers: Mapping[str, str]) -> None:
        if _LINE_END.search("".join(headers.values())):
            raise ValueError(f"a header has several lines: {headers!r:.200}")
        self.body = body
        self.headers = {"Content-Length": str(len(body)), **headers}

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        start_response("200 OK", list(self.headers.items()))
        return () if environ["REQUEST_METHOD"] == "HEAD" else (self.body,)


HttpResponse = Response | CompleteResponse
