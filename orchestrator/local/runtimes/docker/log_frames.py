"""Lines of a container's log, from the frames in which the engine's API sends it.

A frame has a header of 8 bytes: the number of the output stream (stdout or stderr) in the first byte, and the length
of the rest in the last four. The rest is a time stamp, a space, and a line or a part of one: the engine splits lines
into parts of 16 KB, and parts of the other output stream may come in between.

https://docs.docker.com/reference/api/engine/version/v1.43/#tag/Container/operation/ContainerAttach
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from microjobs_orchestrator.local.runtimes.base import Line

MAX_LINE_BYTES = 1 << 20
"""Longer lines are split, because an event of CloudWatch Logs cannot be longer. `process_shim` has the same limit.

A line with carriage returns, such as a progress bar, is split after a carriage return."""

HEADER = struct.Struct(">BxxxL")


@dataclass
class PartialLine:
    """The parts of a line that has not ended yet."""

    time: float = 0.0
    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def take_line(self) -> Line:
        text = b"".join(self.parts)
        self.parts, self.size = [], 0
        return Line(self.time, text)

    def split(self) -> Line:
        """Take a line that is too long, up to its last carriage return if it has one."""
        text = b"".join(self.parts)
        end = text.rfind(b"\r", 0, -1) + 1  # a last one may belong to the end of the line
        if end == 0:
            return self.take_line()
        self.parts, self.size = [text[end:]], len(text) - end
        return Line(self.time, text[:end], is_whole=False)


class Lines:
    """Assembles the lines of one log, in the order in which they end."""

    def __init__(self) -> None:
        self._partial: dict[int, PartialLine] = {}

    def read(self, chunks: Iterable[bytes]) -> Iterator[Line]:
        """Yield the lines that end in the chunks."""
        for output, frame in _frames(chunks):
            stamp, _, text = frame.partition(b" ")
            partial = self._partial.setdefault(output, PartialLine())
            if not partial.size:
                partial.time = _parse_time(stamp)
            has_ended = text.endswith(b"\n")
            partial.parts.append(text[:-1] if has_ended else text)
            partial.size += len(text)
            if has_ended:
                yield partial.take_line()
            elif partial.size >= MAX_LINE_BYTES:
                yield partial.split()

    def rest(self) -> Iterator[Line]:
        """Return each output stream's last line if it has no end."""
        return (partial.take_line() for partial in self._partial.values() if partial.size)


def _frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        start = 0
        while len(buffer) - start >= HEADER.size:
            output, length = HEADER.unpack_from(buffer, start)
            end = start + HEADER.size + length
            if end > len(buffer):
                break
            yield output, buffer[start + HEADER.size : end]
            start = end
        buffer = buffer[start:]


def _parse_time(stamp: bytes) -> float:
    """Return seconds since 1970. The time stamp has nanoseconds, of which a float keeps the microseconds."""
    text = stamp.decode().removesuffix("Z")
    whole, _, fraction = text.partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}")
