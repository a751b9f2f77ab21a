"""HTTP responses and errors."""

import json
import reprlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

from .media_types import JSON


class HttpResponse(NamedTuple):
    """One HTTP response; `row_count` is the number of predictions in it, for the metrics.

    If `stream` is set, it is the whole response, and all other members have no meaning.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    row_count: int = 0
    stream: "ResponseStream | None" = None


@dataclass(frozen=True)
class ResponseStream:
    """A response whose parts are computed while it is sent.

    Args:
        parts: generator of the parts of the body. An error ends the response early; `close` ends the computation.
        make_head: function that returns the response without its body. It is called after the first part, because the
            code that computes the first part may still set the status and the headers.
    """

    parts: Generator[bytes, None, None]
    make_head: Callable[[], HttpResponse]


def make_stream_response(stream: ResponseStream) -> HttpResponse:
    return HttpResponse(200, [], b"", stream=stream)


class HttpError(Exception):
    """Error that a client receives: a status, and a message that states what failed, the value and the remedy."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers

    def response(self) -> HttpResponse:
        """Return a response with the body `{"error": message}`."""
        headers = [(name.replace("_", "-"), value) for name, value in self.headers.items()]
        return HttpResponse(self.status, [("content-type", JSON), *headers], json.dumps({"error": str(self)}).encode())


INTERNAL_ERROR = HttpError(500, "the server failed on this request: see the server's log")
QUEUE_FULL = HttpError(503, "too many requests are waiting: send fewer at a time", retry_after="1")


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 100


def quote(value: object) -> str:
    """Format a client's value for use in a message. The text is short even if the value is long or deeply nested."""
    return shorten(_repr.repr(value), limit=60)


def shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
