"""From an object to the bodies of the requests that a transform job makes of it. Source: facts §2.5.

Joined, the bodies are the object, byte for byte: lines keep their ends, and empty lines are records too.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

CHUNK = 1 << 20


class RecordTooLargeError(Exception):
    """A record does not fit into one request."""


def bodies(path: Path, *, split: str, strategy: str, most: int) -> Iterator[bytes]:
    """The bodies, one by one; the file is never in memory as a whole unless it is one record.

    Args:
        split: `Line`, or `None`: the object is one record.
        strategy: `MultiRecord`, as many lines as fit, or `SingleRecord`.
        most: bytes of a body.

    Raises:
        RecordTooLargeError: a record is larger than that.
    """
    with path.open("rb") as file:
        if split == "None":
            yield _whole(file, most)
        elif strategy == "SingleRecord":
            yield from _lines(file, most)
        else:
            yield from _joined(_lines(file, most), most)


def chunks(path: Path) -> Iterator[bytes]:
    """A file in pieces, for a body that is sent while it is read."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _whole(file: IO[bytes], most: int) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise RecordTooLargeError("the object is larger than a request may be, and SplitType is None")
    return content


def _lines(file: IO[bytes], most: int) -> Iterator[bytes]:
    number = 0
    while line := file.readline(most + 1):
        number += 1
        if len(line) > most:
            raise RecordTooLargeError(f"line {number} is larger than a request may be")
        yield line


def _joined(lines: Iterable[bytes], most: int) -> Iterator[bytes]:
    batch = bytearray()
    for line in lines:
        if len(batch) + len(line) > most:
            yield bytes(batch)
            batch.clear()
        batch += line
    if batch:
        yield bytes(batch)
