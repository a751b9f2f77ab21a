"""Byte ranges of files: parsing, reading and copying."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.s3.checksums import Digest
from microjobs_orchestrator.local.s3.details import BLOCK_BYTES

_RANGE = re.compile("bytes=([0-9]*)-([0-9]*)")


@dataclass(frozen=True)
class Span:
    """A range of a file: `length` bytes from `start`."""

    start: int
    length: int

    def format_content_range(self, size: int) -> str:
        """Return the header Content-Range for a file of `size` bytes."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def parse_range(text: str | None, size: int) -> Span | None:
    """Parse a Range header. Return None for the whole object. Raises ServiceError InvalidRange 416 if the object has no
    byte of the range.

    As on AWS, an invalid header and several ranges also request the whole object.
    """
    match = _RANGE.fullmatch(text.strip()) if text else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = (_parse_number(digits) if digits else size for digits in match.groups())
    if not match[1]:  # `bytes=-N` is the last N bytes
        length = min(last, size)
        start = size - length
    elif match[2] and int(match[2], 16) < int(match[1], 16):
        # int(text, 16) has the same order as decimal numbers, and no limit for the number of digits
        return None
    else:
        start, length = first, min(last, size - 1) - first + 1
    if length < 1:
        raise ServiceError("InvalidRange", f"The requested range {text!r} is not in an object of {size} bytes.", 416)
    return Span(start, length)


def _parse_number(digits: str) -> int:
    """Parse a number. A number with more than 18 digits becomes 10**18, because Python refuses to convert very long
    numbers."""
    significant = digits.lstrip("0")
    return int(significant or 0) if len(significant) <= 18 else 10**18


def find_part_span(part_sizes: tuple[int, ...], size: int, number: int) -> Span:
    """Return the range of a part of an object. Raises ServiceError InvalidPartNumber 416 if the part does not exist.

    An object without `part_sizes` has one part.
    """
    sizes = part_sizes or (size,)
    if not 1 <= number <= len(sizes):
        message = f"The requested part {number} does not exist: the object has {len(sizes)} part(s)."
        raise ServiceError("InvalidPartNumber", message, 416)
    return Span(sum(sizes[: number - 1]), sizes[number - 1])


class FileBody:
    """Iterates over the blocks of a range of an open file. `close` closes the file."""

    def __init__(self, file: BinaryIO, span: Span) -> None:
        self._file = file
        self._remaining = span.length
        file.seek(span.start)

    def __iter__(self) -> Iterator[bytes]:
        while block := self._file.read(min(self._remaining, BLOCK_BYTES)):
            self._remaining -= len(block)
            yield block

    def close(self) -> None:
        self._file.close()


def write_blocks(blocks: Iterable[bytes], file: BinaryIO, digests: Sequence[Digest]) -> None:
    """Write the blocks to a file, and update all digests with each block."""
    for block in blocks:
        file.write(block)
        for digest in digests:
            digest.update(block)
