"""Decompression of requests whose operation supports compressed bodies: clients compress large metrics."""

import zlib
from io import BytesIO

from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.request_state import RequestState

SERVICES = ("cloudwatch",)
"""Services with operations that have the trait `requestcompression`."""
MAX_BYTES = 8 << 20
"""Maximum size of a decompressed body."""
GZIP_BITS = zlib.MAX_WBITS | 16
"""The argument that makes zlib expect a gzip header."""


def decompress_body(state: RequestState) -> None:
    """Replace a body that is compressed by gzip. For services that are not in SERVICES, do nothing.

    Raises:
        ServiceError: the body is not in this format (SerializationException), or it is too large.
    """
    request = state.request
    if state.service not in SERVICES or request.headers.get("Content-Encoding") != "gzip":
        return
    content = _decompress(request.get_data())
    environ = {**request.environ, "wsgi.input": BytesIO(content), "CONTENT_LENGTH": str(len(content))}
    state.request = Request(environ, populate_request=False)


def _decompress(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(GZIP_BITS)
    try:
        content = decompressor.decompress(body, MAX_BYTES + 1)
    except zlib.error as error:
        raise ServiceError("SerializationException", f"the body is not compressed by gzip: {error}") from error
    if len(content) > MAX_BYTES:
        raise ServiceError("RequestEntityTooLarge", f"the decompressed body is larger than {MAX_BYTES} bytes", 413)
    if not decompressor.eof:
        raise ServiceError("SerializationException", "the compressed body is incomplete")
    return content
