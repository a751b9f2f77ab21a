"""Checksum algorithms of S3."""

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import awscrt.checksums  # type: ignore[import-untyped]

from microjobs_orchestrator.local.errors import ServiceError


class Digest(Protocol):
    """An object that computes a checksum, with the methods of hashlib's objects."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    """A cyclic redundancy check with hashlib's methods."""

    def __init__(self, function: Callable[[bytes, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


ALGORITHMS: Mapping[str, Callable[[], Digest]] = {
    "CRC32": lambda: _Crc(zlib.crc32, 4),
    "CRC32C": lambda: _Crc(awscrt.checksums.crc32c, 4),
    "CRC64NVME": lambda: _Crc(awscrt.checksums.crc64nvme, 8),
    "SHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "SHA256": hashlib.sha256,
    "SHA512": hashlib.sha512,
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
}
"""Constructors of the algorithms. S3's member names end with the keys: `ChecksumCRC32` is the checksum of `CRC32`."""

FULL_OBJECT_ONLY_ALGORITHMS = frozenset({"CRC64NVME"})
COMPOSITE_ONLY_ALGORITHMS = frozenset({"SHA1", "SHA256", "SHA512", "MD5"})
"""Algorithms that support only one checksum type for multipart uploads. All other algorithms support both types."""


def make_digests(*algorithms: str) -> dict[str, Digest]:
    """Return new digests by algorithm. Empty names are skipped. Raises ServiceError NotImplemented for unknown
    algorithms."""
    for algorithm in {*algorithms} - {"", *ALGORITHMS}:
        message = f"Checksums {algorithm} are not supported; use one of {', '.join(ALGORITHMS)}."
        raise ServiceError("NotImplemented", message, 501)
    return {algorithm: ALGORITHMS[algorithm]() for algorithm in algorithms if algorithm}


def encode_digests(digests: Mapping[str, Digest]) -> dict[str, str]:
    return {algorithm: encode_digest(digest) for algorithm, digest in digests.items()}


def encode_digest(digest: Digest) -> str:
    """Return the checksum in base64, as requests and responses contain it."""
    return base64.b64encode(digest.digest()).decode()


def make_composite_checksum(algorithm: str, part_checksums: Sequence[str]) -> str:
    """Return the composite checksum of a multipart upload, such as `AAAAAA==-3` for three parts.

    It is the checksum of the concatenated checksums of the parts. All checksums are in base64.
    """
    digest = ALGORITHMS[algorithm]()
    for checksum in part_checksums:
        digest.update(base64.b64decode(checksum))
    return f"{encode_digest(digest)}-{len(part_checksums)}"
