"""Decoding of `aws-chunked` bodies, with a check of each chunk's signature if the chunks are signed.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

import hmac
import io
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import TypeAlias

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.signatures import VerifiedSignature
from microjobs_orchestrator.local.gateway.streams import Stream
from microjobs_orchestrator.local.s3.details import BLOCK_BYTES

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_CHUNKS = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED_CHUNKS = f"STREAMING-{ALGORITHM}-PAYLOAD"
SIGNED_CHUNKS_AND_TRAILER = f"{SIGNED_CHUNKS}-TRAILER"
CHUNKED_PAYLOADS = frozenset({UNSIGNED_CHUNKS, SIGNED_CHUNKS, SIGNED_CHUNKS_AND_TRAILER})
"""Values of the header `x-amz-content-sha256` for `aws-chunked` bodies."""

TRAILER_SIGNATURE = "x-amz-trailer-signature"

_MAX_LINE_BYTES = 16 << 10
_MAX_TRAILERS = 20
_HEX_PATTERN = re.compile(rb"[0-9a-fA-F]{1,16}")


class SignatureChain:
    """Checks the signatures of the chunks.

    The signature of each chunk covers the previous signature. The signature of the first chunk covers the request's
    signature.
    """

    def __init__(self, request_signature: VerifiedSignature) -> None:
        self._request_signature = request_signature
        self._last_signature = request_signature.signature

    def check_chunk(self, digest: bytes, signature: str) -> None:
        """Check the signature of a chunk with this SHA-256 digest. Raises ServiceError SignatureDoesNotMatch 403."""
        self._check("PAYLOAD", (sha256().hexdigest(), digest.hex()), signature, "a chunk")

    def check_trailers(self, trailers: Mapping[str, str], signature: str) -> None:
        """Check the signature of the trailers. Raises ServiceError SignatureDoesNotMatch 403."""
        text = "".join(f"{name}:{value}\n" for name, value in sorted(trailers.items()))
        self._check("TRAILER", (sha256(text.encode()).hexdigest(),), signature, "the trailer")

    def _check(self, part: str, hashes: tuple[str, ...], signature: str, subject: str) -> None:
        request_signature = self._request_signature
        head = (f"{ALGORITHM}-{part}", request_signature.timestamp, request_signature.scope, self._last_signature)
        self._last_signature = request_signature.sign("\n".join((*head, *hashes)))
        if not hmac.compare_digest(self._last_signature.encode(), signature.encode()):
            message = f"The signature of {subject} does not match your secret key: {signature[:64]!r}."
            raise ServiceError("SignatureDoesNotMatch", message, 403)


def decode_chunks(
    stream: Stream, payload_type: str, request_signature: VerifiedSignature | None, trailers: dict[str, str]
) -> Iterator[bytes]:
    """Yield the content of the chunks in blocks. Raises ServiceError for malformed chunks and wrong signatures.

    A chunk is a line `SIZE[;chunk-signature=…]`, with a hexadecimal SIZE, followed by SIZE bytes. Blocks are yielded
    before their chunk's signature is checked. If this function raises an error, the caller must discard the content.

    Args:
        payload_type: one of `CHUNKED_PAYLOADS`.
        request_signature: the signature of the request; None if the request has no signature of version 4.
        trailers: receives the trailers after the last chunk. The keys are their names in lower case.
    """
    if payload_type != UNSIGNED_CHUNKS and request_signature is None:
        message = (
            f"The body is {payload_type}, which needs a request with a signature of version 4: the chunks' signatures "
            "are based on it."
        )
        raise ServiceError("AccessDenied", message, 403)
    chain = (
        SignatureChain(request_signature) if request_signature is not None and payload_type != UNSIGNED_CHUNKS else None
    )
    body, size = io.BufferedReader(_RawStream(stream), BLOCK_BYTES), -1
    while size:
        size, signature = _parse_size_line(_read_line(body))
        digest = sha256()
        for block in _read_chunk(body, size):
            digest.update(block)
            yield block
        if chain is not None:
            chain.check_chunk(digest.digest(), signature)
    trailers |= _read_trailers(body)
    signature = trailers.pop(TRAILER_SIGNATURE, "")
    if payload_type == SIGNED_CHUNKS and trailers:
        raise _make_malformed_error(f"it has a trailer, which only {SIGNED_CHUNKS_AND_TRAILER} allows")
    if chain is not None and payload_type == SIGNED_CHUNKS_AND_TRAILER:
        chain.check_trailers(trailers, signature)


_Reader: TypeAlias = "io.BufferedReader[_RawStream]"


def _read_chunk(body: _Reader, size: int) -> Iterator[bytes]:
    unread_bytes = size
    while unread_bytes:
        block = body.read1(min(unread_bytes, BLOCK_BYTES))
        if not block:
            raise _make_malformed_error("it ends inside a chunk")
        unread_bytes -= len(block)
        yield block
    if size and _read_line(body):
        raise _make_malformed_error("a chunk is longer than its size")


def _read_line(body: _Reader) -> bytes:
    """Return the next line without its line break; empty at the end of the body."""
    line = body.readline(_MAX_LINE_BYTES)
    if len(line) == _MAX_LINE_BYTES:
        raise _make_malformed_error(f"a line has {_MAX_LINE_BYTES} bytes or more")
    return line.rstrip(b"\r\n")


def _parse_size_line(line: bytes) -> tuple[int, str]:
    """Parse the line before a chunk. Return the chunk's size and signature."""
    size, _, extension = line.partition(b";")
    if not _HEX_PATTERN.fullmatch(size):
        raise _make_malformed_error(f"{size[:20]!r} is not the size of a chunk")
    return int(size, 16), extension.decode("latin-1").strip().removeprefix("chunk-signature=")


def _read_trailers(body: _Reader) -> dict[str, str]:
    trailers: dict[str, str] = {}
    while line := _read_line(body):
        name, _, value = line.decode("latin-1").partition(":")
        trailers[name.strip().lower()] = value.strip()
        if len(trailers) > _MAX_TRAILERS:
            raise _make_malformed_error(f"it has more than {_MAX_TRAILERS} trailers")
    return trailers


class _RawStream(io.RawIOBase):
    """Lets `io.BufferedReader` read a stream, which has no method `readline`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's WriteableBuffer
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def _make_malformed_error(reason: str) -> ServiceError:
    return ServiceError("IncompleteBody", f"The aws-chunked body is malformed: {reason}.")
