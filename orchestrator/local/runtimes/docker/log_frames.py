"""Lines of a container's log, from the frames in which the engine's API sends it.

A frame has a header of 8 bytes: the number of the output stream (stdout or stderr) in the first byte, and the length
of the rest in the last four. The rest is a time stamp, a space, and a line or a part of a line. The engine splits lines
into parts of 16 KB. Parts of the other output stream may come between them.

https://docs.docker.com/reference/api/engine/version/v1.43/#tag/Container/operation/ContainerAttach
"""

import itertools
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime

from microjobs_orchestrator.local.runtimes.base import Line

MAX_LINE_BYTES = 1 << 20
"""Maximum length of a line, as for events of CloudWatch Logs. Longer lines are split, after a carriage return if
possible. `process_shim` has the same limit."""

HEADER = struct.Struct(">BxxxL")


class LineAssembler:
    """Assembles the lines of one log, in the order in which they end."""

    def __init__(self) -> None:
        self._partial: dict[int, tuple[float, bytearray]] = {}
        """The unfinished line of each output stream, and its time."""

    def read(self, chunks: Iterable[bytes]) -> Iterator[Line]:
        """Yield the lines that end in the chunks."""
        for output, content in itertools.chain.from_iterable(map(FrameSplitter().split, chunks)):
            stamp, _, text = content.partition(b" ")
            time, line = self._partial.pop(output, (_parse_time(stamp), bytearray()))
            line += text
            if line.endswith(b"\n"):
                yield Line(time, bytes(line[:-1]))
            elif len(line) < MAX_LINE_BYTES:
                self._partial[output] = time, line
            elif end := line.rfind(b"\r", 0, -1) + 1:  # the last byte may be the first one of `\r\n`
                self._partial[output] = time, line[end:]
                yield Line(time, bytes(line[:end]), is_whole=False)
            else:
                yield Line(time, bytes(line))

    def list_unfinished_lines(self) -> Iterator[Line]:
        """Return the incomplete last line of each output stream."""
        return (Line(time, bytes(line)) for time, line in self._partial.values() if line)


class FrameSplitter:
    """Splits a stream into frames."""

    def __init__(self) -> None:
        self._buffer = b""

    def split(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the output streams and contents of the frames that end in the next chunk of the stream."""
        self._buffer += chunk
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            output, length = HEADER.unpack_from(self._buffer, start)
            end = start + HEADER.size + length
            if end > len(self._buffer):
                break
            yield output, self._buffer[start + HEADER.size : end]
            start = end
        self._buffer = self._buffer[start:]


def _parse_time(stamp: bytes) -> float:
    """Return seconds since 1970. The time stamp has nanoseconds, of which a float keeps the microseconds."""
    text = stamp.decode().removesuffix("Z")
    date_and_seconds, _, fraction = text.partition(".")
    return datetime.fromisoformat(date_and_seconds + "+00:00").timestamp() + float(f"0.{fraction or 0}")
