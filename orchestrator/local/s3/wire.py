"""What came over HTTP, before S3 gives it a meaning: nothing decoded twice, no name changed."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl, unquote_to_bytes

from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.auth import PROOF, Proof
from microjobs_orchestrator.local.gateway.listener import HEADERS
from microjobs_orchestrator.local.s3.hosts import bucket_of_host

REQUEST_ID = "microjobs.request_id"
"""Where the application puts the request's id, if it does."""


class Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Incoming:
    """A request: where it goes, in plain text, and its headers by their names in lower case."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    proof: Proof | None = None
    """The signature, if it was found true and is of version 4."""

    @property
    def resource(self) -> str:
        return "/".join(("", self.bucket, self.key)) if self.key else f"/{self.bucket}"


def request_id(request: Request) -> str:
    known: str | None = request.environ.get(REQUEST_ID)
    return known or uuid.uuid4().hex[:16].upper()


def read_request(request: Request) -> Incoming:
    """Raises ServiceError: InvalidURI, the address is not percent-encoded UTF-8; or InvalidArgument."""
    headers = {name.lower(): value for name, value in _headers(request).items()}
    bucket, key = _address(request, headers.get("host", ""))
    text = request.environ.get("QUERY_STRING", "")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError:
        raise ServiceError("InvalidURI", f"Couldn't parse the query {text!r}: it is not UTF-8.") from None
    query = dict(pairs)
    if len(query) != len(pairs):
        raise ServiceError("InvalidArgument", f"A parameter of the query {text!r} came more than once; send it once.")
    return Incoming(request.method, bucket, key, query, headers, request.environ.get(PROOF))


def _headers(request: Request) -> Mapping[str, str]:
    own: Mapping[str, str] | None = request.environ.get(HEADERS)
    return dict(request.headers) if own is None else own


def _address(request: Request, host: str) -> tuple[str, str]:
    """The bucket and the key, from the path or, as in `bucket.localhost`, the host and the path."""
    path, _, _ = str(request.environ["REQUEST_URI"]).partition("?")
    if not path.startswith("/"):  # the absolute form of a request's target
        path = "/" + path.partition("://")[2].partition("/")[2]
    path = path.removeprefix("/")
    bucket = bucket_of_host(host)
    if not bucket:
        bucket, _, path = path.partition("/")
    return _decode(bucket), _decode(path)


def _decode(text: str) -> str:
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except ValueError:
        raise ServiceError("InvalidURI", f"Couldn't parse the URI {text!r}: it is not UTF-8.") from None
