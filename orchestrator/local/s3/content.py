"""Byte ranges of files: parsing, reading and copying."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.s3.checksums import Digest
from microjobs_orchestrator.local.s3.details import BLOCK_BYTES

_RANGE = re.compile("bytes=([0-9]*)-([0-9]*)")
_MAX_DIGITS = 18


@dataclass(frozen=True)
class Span:
    """A range of a file: `length` bytes from `start`."""

    start: int
    length: int

    def header(self, size: int) -> str:
        """Return the value of Content-Range for a file of `size` bytes."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def read_range(text: str | None, size: int) -> Span | None:
    """Parse a Range header. Return None for the whole object.

    As on AWS, an invalid header and several ranges also request the whole object.

    Raises:
        ServiceError: InvalidRange 416.
    """
    match = _RANGE.fullmatch(text.strip()) if text else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = map(_parse_position, match.groups())
    if first is None:  # `bytes=-N` is the last N bytes
        length = min(last or 0, size)
        start = size - length
    else:
        start = first
        if last is not None and _is_less(match[2], match[1]):
            return None
        length = (size - 1 if last is None else min(last, size - 1)) - start + 1
    if length < 1:
        raise ServiceError("InvalidRange", f"The requested range {text!r} is not in an object of {size} bytes.", 416)
    return Span(start, length)


def _parse_position(digits: str) -> int | None:
    """Parse a number of a Range header; None if it is empty. A number with more than 18 digits becomes 18 nines."""
    significant = digits.lstrip("0")
    if len(significant) > _MAX_DIGITS:
        return int("9" * _MAX_DIGITS)
    return int(significant or "0") if digits else None


def _is_less(digits: str, other: str) -> bool:
    """Return whether a number is less than `other`. Python refuses to convert very long numbers."""
    digits, other = digits.lstrip("0"), other.lstrip("0")
    return (len(digits), digits) < (len(other), other)


def part_span(part_sizes: tuple[int, ...], size: int, number: int) -> Span:
    """Return the range of part `number` of an object. An object without `part_sizes` has one part.

    Raises:
        ServiceError: InvalidPartNumber 416.
    """
    sizes = part_sizes or (size,)
    if not 1 <= number <= len(sizes):
        message = f"The requested part {number} does not exist: the object has {len(sizes)}."
        raise ServiceError("InvalidPartNumber", message, 416)
    return Span(sum(sizes[: number - 1]), sizes[number - 1])


class FileBody:
    """Iterates over the blocks of a range of an open file. `close` closes the file."""

    def __init__(self, file: BinaryIO, span: Span) -> None:
        self._file = file
        self._remaining = span.length
        file.seek(span.start)

    def __iter__(self) -> "FileBody":
        return self

    def __next__(self) -> bytes:
        block = self._file.read(min(self._remaining, BLOCK_BYTES)) if self._remaining else b""
        if not block:
            raise StopIteration
        self._remaining -= len(block)
        return block

    def close(self) -> None:
        self._file.close()


def copy(blocks: Iterable[bytes], to: BinaryIO, digests: Iterable[Digest]) -> None:
    """Write the blocks to a file, and update all digests with each block."""
    digests = tuple(digests)
    for block in blocks:
        to.write(block)
        for digest in digests:
            digest.update(block)
