"""Logs of hosts: one file per log stream, with one record `<milliseconds since 1970> <text>` per line.

The file has the bytes that a host printed. A `+` after the time marks a part of a line, which continues in the next
record of the host. A 0 before the time marks a line that the server wrote itself. A restarted server counts the lines
of the host in the file, and appends only the host's later lines. Positions in a stream, such as those in page tokens,
are byte offsets.
"""

import errno
import fcntl
import functools
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator import terminal
from microjobs_orchestrator.local.kinds import load_kinds
from microjobs_orchestrator.local.runtimes.base import Line
from microjobs_orchestrator.local.trees import FileType, is_valid_name, walk

MAX_NAME_BYTES = 255
"""Maximum length of a file's name."""

_BLOCK_BYTES = 1 << 16
_STRIDE_BYTES = 1 << 20
_SERVER_LINE = re.compile(rb"^0", re.MULTILINE)
HOST_START = "a new container starts"
MAX_TIME_DIGITS = 15
RETRY_DELAY = 1.0
"""Seconds between two attempts to write when the disk is full."""


@dataclass(frozen=True)
class LogEvent:
    """A line of output."""

    time: int
    """Milliseconds since 1970."""
    text: bytes
    """The bytes that the host printed, without the newline at the end of the line."""
    start: int
    """The offset of the record in the stream's file."""
    end: int
    """The offset of the next record."""
    is_whole: bool = True
    """False for a part of a line that continues in the next record of the host."""
    is_from_server: bool = False
    """Whether the server wrote the line."""

    @functools.cached_property
    def message(self) -> str:
        """The line as a terminal shows it, with the last state of a progress bar."""
        return terminal.render_line(self.text.decode(errors="replace"))


class LogStream:
    """One log stream. One host writes to it.

    Args:
        on_write: called after each line.
    """

    def __init__(self, path: Path, on_write: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._on_write = on_write

    @contextmanager
    def writer(self) -> Iterator[Callable[[Line], None]]:
        """Remove an incomplete record that a killed server left, and yield a function that appends a host's lines."""
        with self.path.open("ab", buffering=0) as file:
            with _lock_file(file.fileno()):
                if (complete_size := self.get_complete_size()) < self.size():
                    file.truncate(complete_size)
            yield lambda line: self._append(file.fileno(), _format_record(line))

    def note(self, sentence: str) -> None:
        """Add a line that the server writes."""
        text = terminal.strip_controls(sentence).replace("\n", " ").encode()
        with self.path.open("ab", buffering=0) as file:
            self._append(file.fileno(), b"0%d [microjobs] %s\n" % (time.time() * 1000, text))

    def _append(self, file: int, record: bytes) -> None:
        _write(file, record)
        self._on_write()

    def mark_host_start(self) -> None:
        """Mark the start of another host: `count_host_lines` counts lines after the mark."""
        if self.size() > 0:
            self.note(HOST_START)

    def count_host_lines(self) -> int:
        """Return the number of lines that the current host printed. Lines of the server do not count."""
        if self.size() == 0:
            return 0
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = _find_host_start(content)
            lines = sum(content[at : at + _BLOCK_BYTES].count(b"\n") for at in range(start, len(content), _BLOCK_BYTES))
            return lines - sum(1 for _ in _SERVER_LINE.finditer(content, start))

    def events(self, start: int = 0) -> Iterator[LogEvent]:
        """Yield the complete records from an offset on."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            last = 0
            for record in file:
                if not record.endswith(b"\n"):
                    return
                event = _parse_record(record, start, last)
                yield event
                last, start = event.time, event.end

    def find(self, start: int, is_candidate: Callable[[bytes], bool]) -> Iterator[LogEvent]:
        """Yield the candidates among the complete records from an offset on. After each `_STRIDE_BYTES`
        without a candidate, also yield the next record, to show the progress of the search.

        Args:
            is_candidate: receives the bytes of a record. It does not receive an event, because making an event of each
                record would take several times as long.
        """
        if not self.path.exists():
            return
        offset = last = start
        with self.path.open("rb") as file:
            file.seek(start)
            for record in file:
                offset += len(record)
                if record.endswith(b"\n") and (offset - last > _STRIDE_BYTES or is_candidate(record)):
                    yield _parse_record(record, offset - len(record))
                    last = offset

    def is_start(self, offset: int) -> bool:
        """Return whether an offset is the start of a record, or the end of the file."""
        if not 0 < offset <= self.size():
            return offset == 0
        with self.path.open("rb") as file:
            file.seek(offset - 1)
            return file.read(1) == b"\n"

    def list_before(
        self, end: int, max_count: int, matches: Callable[[LogEvent], bool] = lambda _: True
    ) -> list[LogEvent]:
        """Return the last `max_count` matching records before an offset."""
        begin, events, window = end, list[LogEvent](), _BLOCK_BYTES
        while begin > 0 and len(events) < max_count:
            begin = max(0, begin - window)
            events = [event for event in self._complete_records(begin) if event.end <= end and matches(event)]
            window *= 4
        return events[-max_count:]

    def _complete_records(self, offset: int) -> Iterator[LogEvent]:
        """Yield the complete records from the first one that starts at or after an offset."""
        if offset > 0:
            with self.path.open("rb") as file:
                file.seek(offset - 1)
                offset += len(file.readline()) - 1
        return self.events(offset)

    def get_complete_size(self) -> int:
        """Return the offset of the end of the last complete record."""
        end = self.size()
        with self.path.open("rb") as file:
            while end > 0:
                begin = max(0, end - _BLOCK_BYTES)
                file.seek(begin)
                if (newline := file.read(end - begin).rfind(b"\n")) >= 0:
                    return begin + newline + 1
                end = begin
        return 0

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def first_time(self) -> int | None:
        return next((event.time for event in self.events()), None)

    def last_time(self) -> int | None:
        last = self.list_before(self.size(), 1)
        return last[0].time if last else None


class LogStore:
    """All log groups and their streams, below one folder. A `/` in a name separates folders."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.on_line: Callable[[str, str], None] = lambda *_: None
        """This function is called after each line that this process writes, with the names of the group and the
        stream."""

    def _get_folder(self, group: str) -> Path:
        return self._root / group.strip("/")

    def has_group(self, group: str) -> bool:
        return _is_inside(group.strip("/")) and self._get_folder(group).is_dir()

    def groups(self) -> list[str]:
        """Return the groups that have a stream."""
        patterns = sorted({kind.logs.group for kind in load_kinds() if kind.logs is not None})
        paths = [path for pattern in patterns for path in sorted(self._root.glob(pattern.format(name="*").strip("/")))]
        return [f"/{path.relative_to(self._root)}" for path in paths if path.is_dir()]

    def create(self, group: str, name: str) -> LogStream:
        stream = LogStream(self._get_folder(group) / name, lambda: self.on_line(group, name))
        stream.path.parent.mkdir(parents=True, exist_ok=True)
        stream.path.touch()
        return stream

    def stream(self, group: str, name: str) -> LogStream | None:
        """Return a stream; None if it does not exist."""
        path = self._get_folder(group) / name
        return LogStream(path) if self.has_group(group) and _is_inside(name) and path.is_file() else None

    def streams(self, group: str, prefix: str = "") -> dict[str, LogStream]:
        """Return the group's streams whose names begin with a prefix, by name."""
        folder, (inner, slash, _) = self._get_folder(group), prefix.rpartition("/")
        if not self.has_group(group) or (slash and not _is_inside(inner)):
            return {}
        subfolder = folder / inner
        if not subfolder.is_dir():
            return {}
        names = (f"{inner}{slash}{item.name}" for item in walk(subfolder) if item.type is FileType.FILE)
        return {name: LogStream(folder / name) for name in sorted(names) if name.startswith(prefix)}


def _parse_record(record: bytes, start: int, earlier_time: int = 0) -> LogEvent:
    """Return the event of a record.

    Args:
        start: the offset of the record.
        earlier_time: the time of the previous record, for a record without a valid time.
    """
    mark, _, text = record[:-1].partition(b" ")
    stamp = mark.removesuffix(b"+")
    # without a valid time, the record is the end of a line whose beginning is missing
    if not stamp.isdigit() or len(stamp) > MAX_TIME_DIGITS:
        mark, stamp, text = b"", b"%d" % earlier_time, record[:-1]
    is_from_server = mark.startswith(b"0") and len(mark) > 1
    end = start + len(record)
    return LogEvent(int(stamp), text, start, end, is_whole=not mark.endswith(b"+"), is_from_server=is_from_server)


def _format_record(line: Line) -> bytes:
    mark = b"" if line.is_whole else b"+"
    return b"%d%s %s\n" % (line.time * 1000, mark, line.text.replace(b"\n", b"\r"))


def _find_host_start(content: mmap.mmap) -> int:
    sentence, end = f" [microjobs] {HOST_START}\n".encode(), len(content)
    while (position := content.rfind(sentence, 0, end)) >= 0:
        stamp = content[content.rfind(b"\n", 0, position) + 1 : position]
        # without a zero before the time, a host has printed the sentence
        if stamp.startswith(b"0") and stamp.isdigit():
            return position + len(sentence)
        end = position
    return 0


def _write(file: int, record: bytes) -> None:
    """Write a record completely, and wait while the disk is full."""
    unwritten = memoryview(record)
    with _lock_file(file):
        while unwritten:
            try:
                unwritten = unwritten[os.write(file, unwritten) :]
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                time.sleep(RETRY_DELAY)


@contextmanager
def _lock_file(file: int) -> Iterator[None]:
    """Lock a stream's file, so that no line is written into another line that waits for space."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _is_inside(name: str) -> bool:
    """Return whether a name from a client is a path below a folder. The name must be relative, without `..`, and not
    too long."""
    return is_valid_name(name) and max(map(len, name.encode().split(b"/"))) <= MAX_NAME_BYTES
