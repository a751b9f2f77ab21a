"""The checksums that S3 knows and this server computes."""

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import awscrt.checksums  # type: ignore[import-untyped]


class Digest(Protocol):
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
"""By the name that S3's members have behind `Checksum`."""

FULL_OBJECT_ONLY = frozenset({"CRC64NVME"})
COMPOSITE_ONLY = frozenset({"SHA1", "SHA256", "SHA512", "MD5"})
"""For uploads in parts; the other algorithms can be either."""


def encode(digest: Digest) -> str:
    """A checksum as it is on the wire."""
    return base64.b64encode(digest.digest()).decode()


def composite(algorithm: str, parts: Iterable[str]) -> str:
    """The checksum of the parts' checksums, and their number."""
    digest = ALGORITHMS[algorithm]()
    count = 0
    for part in parts:
        digest.update(base64.b64decode(part))
        count += 1
    return f"{encode(digest)}-{count}"
