"""Bodies in `aws-chunked`: taken apart, and each chunk held against its signature if the chunks are signed.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

import hmac
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.forms import Stream
from microjobs_orchestrator.local.gateway.signatures import Proof
from microjobs_orchestrator.local.s3.details import BLOCK_BYTES

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED = f"STREAMING-{ALGORITHM}-PAYLOAD"
SIGNED_WITH_TRAILER = f"{SIGNED}-TRAILER"
KINDS = frozenset({UNSIGNED, SIGNED, SIGNED_WITH_TRAILER})
"""What `x-amz-content-sha256` says of such a body."""

TRAILER_SIGNATURE = "x-amz-trailer-signature"

_MAX_LINE_BYTES = 16 << 10
_MAX_TRAILERS = 20
_HEX = re.compile(rb"[0-9a-fA-F]{1,16}")


class Chain:
    """The signatures of a body's chunks, each made over the one before; the first over the request's own."""

    def __init__(self, proof: Proof) -> None:
        self._proof = proof
        self._last = proof.signature

    def check_chunk(self, digest: bytes, signature: str) -> None:
        """Raises ServiceError SignatureDoesNotMatch, 403. `digest` is the chunk's SHA-256."""
        self._check("PAYLOAD", (sha256().hexdigest(), digest.hex()), signature, "a chunk")

    def check_trailers(self, trailers: Mapping[str, str], signature: str) -> None:
        """Raises ServiceError SignatureDoesNotMatch, 403."""
        signed = "".join(f"{name}:{value}\n" for name, value in sorted(trailers.items()))
        self._check("TRAILER", (sha256(signed.encode()).hexdigest(),), signature, "the trailer")

    def _check(self, kind: str, hashes: tuple[str, ...], signature: str, of: str) -> None:
        proof = self._proof
        head = (f"{ALGORITHM}-{kind}", proof.timestamp, proof.scope, self._last)
        self._last = proof.sign("\n".join((*head, *hashes)))
        if not hmac.compare_digest(self._last.encode(), signature.encode()):
            message = f"The signature of {of} is not what your secret key gives: {signature[:64]!r}."
            raise ServiceError("SignatureDoesNotMatch", message, 403)


def chain_of(kind: str, proof: Proof | None) -> Chain | None:
    """What checks the signatures of a body of a kind; None if it has none.

    Raises:
        ServiceError: AccessDenied 403; the request itself has no signature that theirs could follow.
    """
    if kind == UNSIGNED:
        return None
    if proof is None:
        message = f"The body is {kind}, and the request's own signature is not of version 4: nothing proves its chunks."
        raise ServiceError("AccessDenied", message, 403)
    return Chain(proof)


def decode_chunks(stream: Stream, kind: str, proof: Proof | None, trailers: dict[str, str]) -> Iterator[bytes]:
    """The content of lines `SIZE[;chunk-signature=…]`, each before that many bytes; trailers behind size 0.

    A block is given before its chunk's signature is checked, so the content is not to be used if this raises.

    Args:
        kind: one of `KINDS`.
        proof: the request's own signature.
        trailers: gets what follows the content, names in lower case.

    Raises:
        ServiceError: IncompleteBody 400, or SignatureDoesNotMatch 403.
    """
    chain, body, size = chain_of(kind, proof), _Buffered(stream), -1
    while size:
        size, signature = _head(body.line())
        digest = sha256()
        for block in _chunk(body, size):
            digest.update(block)
            yield block
        if chain is not None:
            chain.check_chunk(digest.digest(), signature)
    trailers |= _trailers(body)
    signature = trailers.pop(TRAILER_SIGNATURE, "")
    if kind == SIGNED and trailers:
        raise malformed(f"it has a trailer, and {SIGNED_WITH_TRAILER} is what has one")
    if chain is not None and kind == SIGNED_WITH_TRAILER:
        chain.check_trailers(trailers, signature)


def _chunk(body: "_Buffered", size: int) -> Iterator[bytes]:
    left = size
    while left:
        block = body.take(left)
        if not block:
            raise malformed("it ends inside a chunk")
        left -= len(block)
        yield block
    if size and body.line():
        raise malformed("a chunk is longer than its size")


def _head(line: bytes) -> tuple[int, str]:
    """A chunk's size and signature, from the line before it."""
    size, _, extension = line.partition(b";")
    if not _HEX.fullmatch(size):
        raise malformed(f"{size[:20]!r} is not the size of a chunk")
    return int(size, 16), extension.decode("latin-1").strip().removeprefix("chunk-signature=")


def _trailers(body: "_Buffered") -> dict[str, str]:
    found: dict[str, str] = {}
    while line := body.line():
        name, _, value = line.decode("latin-1").partition(":")
        found[name.strip().lower()] = value.strip()
        if len(found) > _MAX_TRAILERS:
            raise malformed(f"it has more than {_MAX_TRAILERS} trailers")
    return found


class _Buffered:
    """Lines and bytes of a stream. Cheroot's own `readline` with a limit does not end in a body of HTTP chunks."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._data = b""

    def line(self) -> bytes:
        """The next line, without its end; empty at the end of the stream."""
        while (
            b"\n" not in self._data and len(self._data) < _MAX_LINE_BYTES and (block := self._stream.read(BLOCK_BYTES))
        ):
            self._data += block
        line, _, self._data = self._data.partition(b"\n")
        if len(line) > _MAX_LINE_BYTES:
            raise malformed("a line has no end")
        return line.rstrip(b"\r")

    def take(self, size: int) -> bytes:
        """Some of the next bytes, at most `size`; empty at the end of the stream."""
        data = self._data or self._stream.read(BLOCK_BYTES)
        self._data = data[size:]
        return data[:size]


def malformed(reason: str) -> ServiceError:
    return ServiceError("IncompleteBody", f"The aws-chunked body is malformed: {reason}.")
