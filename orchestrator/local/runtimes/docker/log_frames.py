"""A container's log as the engine's API streams it: frames of stdout and stderr, made into lines.

A frame is a header, the stream's number in its first byte and the length of the rest in its last four, then a time
stamp, and a line or a part of one: the engine cuts lines into pieces of 16 KB, between which pieces of the other
stream may come. Source: Docker Engine API, "Attach to a container", stream format.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from microjobs_orchestrator.local.runtimes.base import Line

LONGEST_LINE = 1 << 20
"""Bytes; a longer line comes in pieces, as an event of CloudWatch holds no more. `process_shim` has the same.

A line that was rewritten with carriage returns, such as a progress bar, is cut behind one of these."""

HEADER = struct.Struct(">BxxxL")


@dataclass
class Begun:
    """A line whose end has not come yet."""

    time: float = 0.0
    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def line(self) -> Line:
        text = b"".join(self.parts)
        self.parts, self.size = [], 0
        return Line(self.time, text)

    def piece(self) -> Line:
        """A line that is too long, up to its last carriage return if it has one."""
        text = b"".join(self.parts)
        end = text.rfind(b"\r", 0, -1) + 1  # a last one may belong to the end of the line
        if end == 0:
            return self.line()
        self.parts, self.size = [text[end:]], len(text) - end
        return Line(self.time, text[:end], is_whole=False)


class Lines:
    """Puts the lines of one log together; each stream's come in order, and in the order in which they ended."""

    def __init__(self) -> None:
        self._begun: dict[int, Begun] = {}

    def read(self, chunks: Iterable[bytes]) -> Iterator[Line]:
        """The lines that end in the chunks."""
        for stream, frame in _frames(chunks):
            stamp, _, text = frame.partition(b" ")
            begun = self._begun.setdefault(stream, Begun())
            if not begun.size:
                begun.time = _seconds(stamp)
            has_ended = text.endswith(b"\n")
            begun.parts.append(text[:-1] if has_ended else text)
            begun.size += len(text)
            if has_ended:
                yield begun.line()
            elif begun.size >= LONGEST_LINE:
                yield begun.piece()

    def rest(self) -> Iterator[Line]:
        """What each stream said last, without an end of the line."""
        return (begun.line() for begun in self._begun.values() if begun.size)


def _frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        start = 0
        while len(buffer) - start >= HEADER.size:
            stream, length = HEADER.unpack_from(buffer, start)
            end = start + HEADER.size + length
            if end > len(buffer):
                break
            yield stream, buffer[start + HEADER.size : end]
            start = end
        buffer = buffer[start:]


def _seconds(stamp: bytes) -> float:
    """Docker's time stamp, which has nanoseconds; a float of today's seconds keeps the microseconds."""
    text = stamp.decode().removesuffix("Z")
    whole, _, fraction = text.partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}")
