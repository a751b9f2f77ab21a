"""MXNet's RecordIO format, https://mxnet.apache.org/versions/1.9.1/api/architecture/note_data_loading.

A record has one or several parts. A part is a magic number, a word with a flag of 3 bits and a length of 29 bits, the
content, and zeros up to a multiple of four bytes. The flag is 0 for a single part, and 3 for the last of several parts.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAGIC = 0xCED7230A
HEADER_BYTES = 8
MAX_LENGTH_BYTES = (1 << 29) - 1
"""Maximum length of the content of a part."""

_LAST_FLAGS = (0, 3)


@dataclass(frozen=True)
class Header:
    """Header of a part. `length` does not include the padding."""

    is_last: bool
    length: int

    @property
    def padded_length(self) -> int:
        return self.length + -self.length % 4


def parse_header(content: bytes) -> Header:
    """Parse the header of a part. Raises ValueError if it does not begin with the magic number."""
    magic, word = struct.unpack("<II", content)
    if magic != MAGIC:
        raise ValueError(f"a RecordIO part begins with {MAGIC:#x}, not {magic:#x}")
    return Header(is_last=word >> 29 in _LAST_FLAGS, length=word & MAX_LENGTH_BYTES)


def wrap(length: int, content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a record with a single part of `length` bytes. Raises ValueError if it is too long."""
    if length > MAX_LENGTH_BYTES:
        message = f"a RecordIO record has {MAX_LENGTH_BYTES} bytes at most, not {length}: set RecordWrapperType to None"
        raise ValueError(message)
    yield struct.pack("<II", MAGIC, length)
    yield from content
    yield bytes(-length % 4)
