"""A request's body: taken off its transfer coding, and held against what was signed and the checksums that came."""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from math import inf
from typing import BinaryIO

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.forms import Stream
from microjobs_orchestrator.local.gateway.signatures import UNSIGNED_PAYLOAD, Proof
from microjobs_orchestrator.local.s3.checksums import ALGORITHMS, Digest, encode
from microjobs_orchestrator.local.s3.chunks import KINDS, decode_chunks
from microjobs_orchestrator.local.s3.details import BLOCK_BYTES

MAX_DOCUMENT_BYTES = 16 << 20
"""Bytes of an XML body; ten thousand parts with two checksums each are 3 MB."""

_CHECKSUM = "x-amz-checksum-"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_LENGTH_DIGITS = 18
_NOT_ALGORITHMS = frozenset({"mode", "type", "algorithm"})
"""Headers that begin as a checksum's does and are none."""


class Body:
    """A request's body and the headers that describe it."""

    def __init__(self, headers: Mapping[str, str], stream: Stream, proof: Proof | None = None) -> None:
        self.headers = headers
        self.stream = stream
        self.proof = proof
        """Signature that the signatures of the chunks continue, if the body has such."""

    def read(self) -> bytes:
        """Read a small body, such as an XML document. Raises ServiceError, as `receive`."""
        document = BytesIO()
        receive(self, document, MAX_DOCUMENT_BYTES)
        return document.getvalue()


@dataclass(frozen=True)
class Received:
    size: int
    md5: str
    """In hex."""
    checksums: Mapping[str, str]
    """The one that the client sent, if it sent one, by algorithm."""


def receive(body: Body, to: BinaryIO, limit: float = inf) -> Received:
    """Write a body to a file, block by block.

    Args:
        to: gets the content, which is not to be used if this raises.
        limit: of the content, in bytes.

    Raises:
        ServiceError: the body is not whole, or is not what was signed, or what one of its checksums says.
    """
    headers = body.headers
    promised = _promised(headers)
    md5 = hashlib.md5(usedforsecurity=False)
    sha256 = hashlib.sha256()
    signed = _SHA256.fullmatch(headers.get("x-amz-content-sha256", ""))
    digests: list[Digest] = [md5, *promised.values()]
    if signed:
        digests.append(sha256)
    trailers: dict[str, str] = {}
    size = 0
    for block in _content(body, trailers):
        size += len(block)
        if size > limit:
            raise ServiceError("MaxMessageLengthExceeded", f"Your request was too big: the limit is {limit} bytes.")
        for digest in digests:
            digest.update(block)
        to.write(block)
    if signed and sha256.hexdigest() != signed[0]:
        message = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise ServiceError("XAmzContentSHA256Mismatch", message)
    _check_md5(headers, md5.digest())
    return Received(size, md5.hexdigest(), _check_checksums({**trailers, **headers}, promised))


def _content(body: Body, trailers: dict[str, str]) -> Iterator[bytes]:
    """The blocks of the content; when they are over, `trailers` has what followed them."""
    expected: int | None
    headers, kind = body.headers, body.headers.get("x-amz-content-sha256", UNSIGNED_PAYLOAD)
    if kind in KINDS:
        expected = _number(headers, "x-amz-decoded-content-length")
        blocks = decode_chunks(body.stream, kind, body.proof, trailers)
    elif kind != UNSIGNED_PAYLOAD and not _SHA256.fullmatch(kind):
        message = (
            f"x-amz-content-sha256 must be a SHA-256, {UNSIGNED_PAYLOAD}, {', '.join(sorted(KINDS))}, not {kind!r}."
        )
        raise ServiceError("InvalidArgument", message)
    else:
        expected, blocks = _length(headers), iter(lambda: body.stream.read(BLOCK_BYTES), b"")
    size = 0
    for block in blocks:
        size += len(block)
        yield block
    if expected is not None and size != expected:
        message = f"You did not provide the number of bytes that the headers say: {size} instead of {expected}."
        raise ServiceError("IncompleteBody", message)


def _length(headers: Mapping[str, str]) -> int | None:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return None
    return _number(headers, "content-length")


def _number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not (text.isascii() and text.isdigit()):
        raise ServiceError("MissingContentLength", f"You must provide the {name} HTTP header.", 411)
    if len(text) > _MAX_LENGTH_DIGITS:
        raise ServiceError("EntityTooLarge", f"{name} is {text[:40]}…: no object is that large.")
    return int(text)


def _promised(headers: Mapping[str, str]) -> dict[str, Digest]:
    """The algorithm of the checksum that the headers have, or announce as a trailer."""
    names = [name for name in headers if name.startswith(_CHECKSUM)]
    names += headers.get("x-amz-trailer", "").lower().replace(" ", "").split(",")
    algorithms = {name.removeprefix(_CHECKSUM) for name in names if name.startswith(_CHECKSUM)} - _NOT_ALGORITHMS
    if len(algorithms) > 1:
        raise ServiceError(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksums are not allowed."
        )
    if not algorithms and (wanted := headers.get("x-amz-sdk-checksum-algorithm")):
        message = (
            f"x-amz-sdk-checksum-algorithm is {wanted!r}, but there is no x-amz-checksum- header or x-amz-trailer."
        )
        raise ServiceError("InvalidRequest", message)
    return {name: _digest(name) for name in map(str.upper, algorithms)}


def _digest(algorithm: str) -> Digest:
    if algorithm not in ALGORITHMS:
        message = f"Checksums {algorithm} are not supported; use one of {', '.join(ALGORITHMS)}."
        raise ServiceError("NotImplemented", message, 501)
    return ALGORITHMS[algorithm]()


def _check_md5(headers: Mapping[str, str], computed: bytes) -> None:
    text = headers.get("content-md5")
    if text is None:
        return
    try:
        expected = base64.b64decode(text, validate=True)
    except ValueError:  # not of ASCII, or not base64
        expected = b""
    if len(expected) != len(computed):
        raise ServiceError("InvalidDigest", f"The Content-MD5 you specified is not an MD5 in base64: {text!r}.")
    if expected != computed:
        raise ServiceError("BadDigest", "The Content-MD5 you specified did not match what we received.")


def _check_checksums(headers: Mapping[str, str], promised: Mapping[str, Digest]) -> dict[str, str]:
    computed = {algorithm: encode(digest) for algorithm, digest in promised.items()}
    for algorithm, checksum in computed.items():
        name = _CHECKSUM + algorithm.lower()
        if name not in headers:
            raise ServiceError(
                "MalformedTrailerError", f"The request announced the trailer {name}, and it did not come."
            )
        if headers[name] != checksum:
            message = f"The {algorithm} you specified did not match the calculated checksum."
            raise ServiceError("BadDigest", message)
    return computed
