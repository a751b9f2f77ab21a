"""Authentication: one interceptor reads the signature; a later interceptor verifies it when the service is known.

Most services sign the SHA-256 of the body without sending it, so the body must be read before the signature can be
verified. Until then, the body must use little memory: a large body is on disk, and the number of bodies is limited.
"""

import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from http import HTTPStatus
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO

from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.claims import AuthError, Claim, read_claim
from microjobs_orchestrator.local.gateway.exchange import MLFLOW_SERVICE, OWN_SERVICE, Exchange, Interceptor
from microjobs_orchestrator.local.gateway.forms import Form, is_form
from microjobs_orchestrator.local.gateway.signatures import verify, verify_form
from microjobs_orchestrator.local.gateway.streams import Body, Input
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.protocols.protocol import get_protocol

MAX_BODY_BYTES = 8 << 20
MAX_BODY_BYTES_BY_SERVICE = {"sagemaker-runtime": 25 << 20, MLFLOW_SERVICE: 25 << 20, OWN_SERVICE: 64 << 10}
"""Maximum sizes of bodies that the server reads before it authenticates the request."""

MEMORY_BYTES = 256 << 10
"""Larger bodies are temporary files until the request is authenticated."""

BODY_TIMEOUT = 60.0
"""Seconds to receive a whole body."""

MAX_BODIES = 32
"""Limit for bodies that are read at the same time: fewer than the server's threads, so that slow senders cannot occupy
all of them."""

MAX_FORMS = 16
"""Limit for forms that are read at the same time. It is separate, because anyone can send a form."""


class Spool:
    """Reads bodies. It may be used from any thread."""

    def __init__(self, max_bodies: int = MAX_BODIES) -> None:
        self._max_bodies = max_bodies
        self._slots = threading.BoundedSemaphore(max_bodies)

    def copy(self, request: Request, max_bytes: int) -> tuple[IO[bytes], str]:
        """Read the body of a request into a temporary file. Return the file, and the SHA-256 in hexadecimal digits.

        Raises:
            ServiceError: 413, the body is too large; 408 or 400, it is incomplete; 503, too many bodies are being read.
        """
        stream = request.environ["wsgi.input"]
        if isinstance(stream, Body) and stream.has_arrived():  # a small body is received with the headers
            body = stream.take()
            _check_size(len(body), max_bytes)
            return BytesIO(body), sha256(body).hexdigest()
        file: IO[bytes] = SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115  the caller closes it
        try:
            return file, self._copy(request, max_bytes, file)
        except BaseException:
            file.close()
            raise

    def _copy(self, request: Request, max_bytes: int, file: IO[bytes]) -> str:
        size, digest = 0, sha256()
        _check_size(request.content_length or 0, max_bytes)
        with self.reserve_slot(request):
            for block in iter(Input(request.environ["wsgi.input"], late_status=408).read, b""):
                size += len(block)
                _check_size(size, max_bytes)
                digest.update(block)
                file.write(block)
        file.seek(0)
        return digest.hexdigest()

    @contextmanager
    def reserve_slot(self, request: Request) -> Iterator[None]:
        """Let the block read a body, for at most `BODY_TIMEOUT` seconds.

        Raises:
            ServiceError: 503, too many bodies are being read.
        """
        stream = request.environ["wsgi.input"]
        if isinstance(stream, Body) and stream.has_arrived():  # a small body is received with the headers
            yield
            return
        if not self._slots.acquire(blocking=False):
            message = f"{self._max_bodies} other unauthenticated requests are being read: try again"
            raise ServiceError("ServiceUnavailable", message, 503)
        try:
            with stream.limit(BODY_TIMEOUT) if isinstance(stream, Body) else nullcontext():
                yield
        finally:
            self._slots.release()


class BodyDigest:
    """Reads the body of a request when it is called first, and returns its SHA-256 in hexadecimal digits.

    It replaces the input of the request by a file, which is closed after the block.
    """

    def __init__(self, spool: Spool, request: Request, max_bytes: int) -> None:
        self._spool = spool
        self._request = request
        self._max_bytes = max_bytes
        self._copied: tuple[IO[bytes], str] | None = None

    def __call__(self) -> str:
        if self._copied is None:
            self._copied = self._spool.copy(self._request, self._max_bytes)
            self._request.environ["wsgi.input"] = self._copied[0]
        return self._copied[1]

    def __enter__(self) -> "BodyDigest":
        return self

    def __exit__(self, *_: object) -> None:
        if self._copied is not None:
            self._copied[0].close()


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        message = f"the body is larger than {max_bytes} bytes, the limit of this service"
        raise ServiceError("RequestEntityTooLarge", message, 413)


# --- interceptors ---

FORM_CLAIM = Claim("", "", "s3", "", (), "")


def make_signature_reader() -> Interceptor:
    """Return an interceptor that reads a request's signature, or an upload form's fields, which include a signature."""
    spool = Spool(MAX_FORMS)

    def read_signature(exchange: Exchange) -> None:
        if exchange.protocol is get_protocol("rest-xml") and is_form(exchange.request):
            exchange.form, exchange.claim = _read_form(exchange.request, spool), FORM_CLAIM
        else:
            exchange.claim = read_claim(exchange.request)

    return read_signature


def _read_form(request: Request, spool: Spool) -> Form:
    try:
        with spool.reserve_slot(request):
            return Form(request, Input(request.environ["wsgi.input"]))
    except ServiceError as error:
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        raise AuthError("missing", f"the form's signature cannot be read: {error.message}") from error


def make_authenticator(credentials: Credentials, streaming: Container[str]) -> Interceptor:
    """Return an interceptor that verifies the signature. Until then, the body is not read or uses little memory.

    Args:
        credentials: the home's.
        streaming: services that read the body themselves.
    """
    spool = Spool()

    def authenticate(exchange: Exchange) -> None:
        if exchange.form is not None:
            verify_form(exchange.form.fields, credentials)
            return
        limit = MAX_BODY_BYTES_BY_SERVICE.get(exchange.service, MAX_BODY_BYTES)
        with BodyDigest(spool, exchange.request, limit) as digest:
            exchange.proof = verify(exchange.request, exchange.claim, credentials, digest)
            if exchange.service not in streaming:
                exchange.request.get_data()

    return authenticate
