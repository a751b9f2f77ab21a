"""Bodies of requests: decoding, and verification against the request's signature and checksums."""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from math import inf
from typing import BinaryIO

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.signatures import UNSIGNED_PAYLOAD, VerifiedSignature
from microjobs_orchestrator.local.gateway.streams import Stream
from microjobs_orchestrator.local.s3.byte_ranges import write_blocks
from microjobs_orchestrator.local.s3.checksums import Digest, encode_digests, make_digests
from microjobs_orchestrator.local.s3.chunks import CHUNKED_PAYLOADS, decode_chunks
from microjobs_orchestrator.local.s3.details import BLOCK_BYTES, Details

MAX_DOCUMENT_BYTES = 16 << 20
"""Maximum size of an XML body. A list of ten thousand parts with two checksums each has 3 MB."""

CHECKSUM_PREFIX = "x-amz-checksum-"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_LENGTH_DIGITS = 18
_SUFFIXES_WITHOUT_CHECKSUM = frozenset({"mode", "type", "algorithm"})
"""Endings of the names of headers that begin with `x-amz-checksum-` but contain no checksum."""


@dataclass
class Body:
    """A request's body and the headers that describe it."""

    headers: Mapping[str, str]
    stream: Stream
    signature: VerifiedSignature | None = None
    """Signature of the request, on which its chunks' signatures are based; None if its chunks are not signed."""

    def read(self) -> bytes:
        """Read a small body, such as an XML document. Raises ServiceError, like `receive`."""
        document = BytesIO()
        receive(self, document, MAX_DOCUMENT_BYTES)
        return document.getvalue()


def receive(body: Body, file: BinaryIO, limit: float = inf, algorithm: str = "") -> Details:
    """Write a body to a file, block by block. Return details with the MD5 as ETag, and the checksum.

    Raises ServiceError if the body is incomplete, too long, or does not match its signature or a checksum. The caller
    must then discard the file.

    Args:
        limit: maximum number of bytes of the content.
        algorithm: algorithm of the checksum that is computed if the client sends none; empty for no checksum.
    """
    headers, md5, sha256 = body.headers, hashlib.md5(usedforsecurity=False), hashlib.sha256()
    client_digests = _make_client_digests(headers)
    extra_digests = {} if client_digests else make_digests(algorithm)
    signed_sha256 = _SHA256.fullmatch(headers.get("x-amz-content-sha256", ""))
    trailers: dict[str, str] = {}
    digests = [md5, *client_digests.values(), *extra_digests.values(), *([sha256] if signed_sha256 else [])]
    write_blocks(_read_content(body, limit, trailers), file, digests)
    if signed_sha256 and sha256.hexdigest() != signed_sha256[0]:
        message = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise ServiceError("XAmzContentSHA256Mismatch", message)
    _check_md5(headers, md5.digest())
    _check_checksums({**trailers, **headers}, encode_digests(client_digests))
    return Details(md5.hexdigest(), checksums=encode_digests({**client_digests, **extra_digests}))


def _read_content(body: Body, limit: float, trailers: dict[str, str]) -> Iterator[bytes]:
    """Yield the blocks of the content. Afterwards, `trailers` contains the trailers of the body."""
    expected_size: int | None
    headers, payload_type = body.headers, body.headers.get("x-amz-content-sha256", UNSIGNED_PAYLOAD)
    if payload_type in CHUNKED_PAYLOADS:
        expected_size = _parse_length(headers, "x-amz-decoded-content-length")
        blocks = decode_chunks(body.stream, payload_type, body.signature, trailers)
    elif payload_type != UNSIGNED_PAYLOAD and not _SHA256.fullmatch(payload_type):
        payload_types = ", ".join(sorted(CHUNKED_PAYLOADS))
        message = f"x-amz-content-sha256 must be a SHA-256, {UNSIGNED_PAYLOAD}, {payload_types}, not {payload_type!r}."
        raise ServiceError("InvalidArgument", message)
    else:
        is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        expected_size = None if is_chunked else _parse_length(headers, "content-length")
        blocks = iter(lambda: body.stream.read(BLOCK_BYTES), b"")
    size = 0
    for block in blocks:
        size += len(block)
        if size > limit:
            raise ServiceError("MaxMessageLengthExceeded", f"Your request was too big: the limit is {limit} bytes.")
        yield block
    if expected_size is not None and size != expected_size:
        message = f"You did not provide the number of bytes that the headers say: {size} instead of {expected_size}."
        raise ServiceError("IncompleteBody", message)


def _parse_length(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not (text.isascii() and text.isdigit()):
        raise ServiceError("MissingContentLength", f"You must provide the {name} HTTP header.", 411)
    if len(text) > _MAX_LENGTH_DIGITS:
        raise ServiceError("EntityTooLarge", f"{name} is {text[:40]}…, which is larger than any object can be.")
    return int(text)


def _make_client_digests(headers: Mapping[str, str]) -> dict[str, Digest]:
    """Return a mapping from an algorithm to a new digest, for the checksum that the headers contain or announce as a
    trailer. It is empty if there is no checksum."""
    names = [*headers, *headers.get("x-amz-trailer", "").lower().replace(" ", "").split(",")]
    algorithms = {
        name.removeprefix(CHECKSUM_PREFIX) for name in names if name.startswith(CHECKSUM_PREFIX)
    } - _SUFFIXES_WITHOUT_CHECKSUM
    if "" in algorithms:
        raise ServiceError("NotImplemented", f"The header or trailer {CHECKSUM_PREFIX!r} names no algorithm.", 501)
    if len(algorithms) > 1:
        message = "Expecting a single x-amz-checksum- header. Multiple checksums are not allowed."
        raise ServiceError("InvalidRequest", message)
    if not algorithms and (requested := headers.get("x-amz-sdk-checksum-algorithm")):
        message = f"x-amz-sdk-checksum-algorithm is {requested!r}, but there is no x-amz-checksum- header or trailer."
        raise ServiceError("InvalidRequest", message)
    return make_digests(*map(str.upper, algorithms))


def _check_md5(headers: Mapping[str, str], computed_md5: bytes) -> None:
    text = headers.get("content-md5")
    if text is None:
        return
    try:
        expected_md5 = base64.b64decode(text, validate=True)
    except ValueError:
        expected_md5 = b""
    if len(expected_md5) != len(computed_md5):
        raise ServiceError("InvalidDigest", f"The Content-MD5 you specified is not an MD5 in base64: {text!r}.")
    if expected_md5 != computed_md5:
        raise ServiceError("BadDigest", "The Content-MD5 you specified did not match what we received.")


def _check_checksums(headers: Mapping[str, str], computed_checksums: Mapping[str, str]) -> None:
    for algorithm, checksum in computed_checksums.items():
        name = CHECKSUM_PREFIX + algorithm.lower()
        if name not in headers:
            message = f"The request announced the trailer {name}, but did not send it."
            raise ServiceError("MalformedTrailerError", message)
        if headers[name] != checksum:
            message = f"The {algorithm} you specified did not match the calculated checksum."
            raise ServiceError("BadDigest", message)
