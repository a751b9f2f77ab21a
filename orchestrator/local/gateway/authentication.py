"""Authentication: one interceptor reads the signature; a later interceptor verifies it when the service is known.

For most services, clients sign the SHA-256 of the body but do not send this SHA-256. So the server must read the body
before it can verify the signature. Until then, the body must use little memory: a large body is a temporary file, and
the number of bodies is limited.
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
from microjobs_orchestrator.local.gateway.forms import Form, is_form
from microjobs_orchestrator.local.gateway.request_state import MLFLOW_SERVICE, OWN_SERVICE, Interceptor, RequestState
from microjobs_orchestrator.local.gateway.signatures import verify, verify_form
from microjobs_orchestrator.local.gateway.streams import Body, Input
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.protocols.protocol import get_protocol

MAX_BODY_BYTES = 8 << 20
MAX_BODY_BYTES_BY_SERVICE = {"sagemaker-runtime": 25 << 20, MLFLOW_SERVICE: 25 << 20, OWN_SERVICE: 64 << 10}
"""Maximum sizes of bodies that the server reads before it authenticates the request."""

MAX_BODY_MEMORY_BYTES = 256 << 10
"""Larger bodies are temporary files until the request is authenticated."""

BODY_TIMEOUT = 60.0
"""Seconds to receive a whole body."""

MAX_BODIES = 32
"""Limit for bodies that are read at the same time: fewer than the server's threads, so that slow senders cannot occupy
all threads."""

MAX_FORMS = 16
"""Limit for upload forms that are read at the same time. Forms have their own limit, so that someone who sends forms
without credentials cannot keep the server from reading other requests."""


class BodySpool:
    """Reads the bodies of unauthenticated requests into memory or temporary files. Any thread may use it."""

    def __init__(self, max_bodies: int = MAX_BODIES) -> None:
        self._max_bodies = max_bodies
        self._slots = threading.BoundedSemaphore(max_bodies)

    def copy(self, request: Request, max_bytes: int) -> tuple[IO[bytes], str]:
        """Read the body of a request into a file in memory, or into a temporary file. Return the file, and the body's
        SHA-256 in hexadecimal digits.

        Raises:
            ServiceError: 413, the body is too large; 408, the client is slow or disconnected; 400, the body is
                malformed or incomplete; 503, too many bodies are being read.
        """
        stream = request.environ["wsgi.input"]
        if isinstance(stream, Body) and stream.has_arrived():  # a small body is received with the headers
            body = stream.take()
            _check_size(len(body), max_bytes)
            return BytesIO(body), sha256(body).hexdigest()
        file: IO[bytes] = SpooledTemporaryFile(MAX_BODY_MEMORY_BYTES)  # noqa: SIM115  the caller closes it
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
        """Reserve one of the slots while the `with` block reads a body. It must arrive within `BODY_TIMEOUT` seconds.

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
            with stream.limit_time(BODY_TIMEOUT) if isinstance(stream, Body) else nullcontext():
                yield
        finally:
            self._slots.release()


class BodyDigest:
    """Reads the body of a request at the first call. Each call returns the body's SHA-256 in hexadecimal digits.

    The first call also replaces the request's input by a file with the body. The end of the `with` block closes the
    file.
    """

    def __init__(self, spool: BodySpool, request: Request, max_bytes: int) -> None:
        self._spool = spool
        self._request = request
        self._max_bytes = max_bytes
        self._file_and_digest: tuple[IO[bytes], str] | None = None

    def __call__(self) -> str:
        if self._file_and_digest is None:
            self._file_and_digest = self._spool.copy(self._request, self._max_bytes)
            self._request.environ["wsgi.input"] = self._file_and_digest[0]
        return self._file_and_digest[1]

    def __enter__(self) -> "BodyDigest":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file_and_digest is not None:
            self._file_and_digest[0].close()


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        message = f"the body is larger than {max_bytes} bytes, the limit of this service"
        raise ServiceError("RequestEntityTooLarge", message, 413)


# --- interceptors ---

FORM_CLAIM = Claim(access_key_id="", region="", service="s3", timestamp="", signed_headers=(), signature="")
"""The claim of every request with an upload form. It names only the service, because the signature is in the form."""


def make_signature_reader() -> Interceptor:
    """Return an interceptor that reads a request's signature, or an upload form's fields, which include a signature."""
    spool = BodySpool(MAX_FORMS)

    def read_signature(state: RequestState) -> None:
        if is_form(state.request) and state.protocol is get_protocol("rest-xml"):
            state.form, state.claim = _read_form(state.request, spool), FORM_CLAIM
        else:
            state.claim = read_claim(state.request)

    return read_signature


def _read_form(request: Request, spool: BodySpool) -> Form:
    try:
        with spool.reserve_slot(request):
            return Form(request, Input(request.environ["wsgi.input"]))
    except ServiceError as error:
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        raise AuthError("missing", f"the form's signature cannot be read: {error.message}") from error


def make_authenticator(credentials: Credentials, streaming_services: Container[str]) -> Interceptor:
    """Return an interceptor that verifies the signature, and then reads the body into memory if the service does not
    read the body itself.

    Args:
        credentials: the credentials of the home.
        streaming_services: services that read the body themselves.
    """
    spool = BodySpool()

    def authenticate(state: RequestState) -> None:
        if state.form is not None:
            verify_form(state.form.fields, credentials)
            return
        limit = MAX_BODY_BYTES_BY_SERVICE.get(state.service, MAX_BODY_BYTES)
        with BodyDigest(spool, state.request, limit) as digest:
            state.signature = verify(state.request, state.claim, credentials, digest)
            if state.service not in streaming_services:
                state.request.get_data()

    return authenticate
