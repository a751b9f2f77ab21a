"""The jobs' output, a file a log stream: `<milliseconds since 1970> <text>` a line, so that it can be read and grepped.

The file has every byte of a line. A `+` behind the time says that the line goes on in the next record of its host.

A position in a stream is a byte offset, which is what tokens carry. The server's own sentences have a 0 before their
time: so the lines that hosts have said can be counted, and a server that was killed goes on behind the last of them.
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
from microjobs_orchestrator.local.kinds import all_kinds
from microjobs_orchestrator.local.runtimes.base import Line
from microjobs_orchestrator.local.trees import FileType, walk

MOST_NAME_BYTES = 255
"""Of a file's name."""

_BLOCK = 1 << 16
_OWN = re.compile(rb"^0", re.MULTILINE)
BEGIN = "a new container starts"
MAX_STAMP_DIGITS = 15
"""Of a time in milliseconds."""
FULL_SECONDS = 1.0
"""Between two tries to write where no space is left."""


@dataclass(frozen=True)
class LogEvent:
    """A line of output."""

    time: int
    """Milliseconds since 1970."""
    text: bytes
    """Every byte that the host wrote."""
    start: int
    """Where its record begins in the stream's file."""
    end: int
    """Where the next one begins."""
    is_whole: bool = True
    """False for a part of a rewritten line."""
    is_own: bool = False
    """Whether it is a sentence of the server."""

    @functools.cached_property
    def message(self) -> str:
        """The line as a terminal shows it: a progress bar has its last state."""
        return terminal.render_line(self.text.decode(errors="replace"))


class LogStream:
    """One log stream, written by the one job host that it belongs to and read by anyone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def writer(self) -> Iterator[Callable[[Line], None]]:
        """Takes a host's lines; half a line of a killed server is dropped."""
        with self.path.open("ab", buffering=0) as file:
            with _locked(file.fileno()):
                if (whole := self.whole_size()) < self.size():
                    file.truncate(whole)
            yield lambda line: _write(file.fileno(), _record(line))

    def append(self, when: float, text: bytes) -> None:
        """Add one line of a host; `when` in seconds since 1970."""
        with self.writer() as write:
            write(Line(when, text))

    def note(self, sentence: str) -> None:
        """Add a sentence of the server's own."""
        text = terminal.strip_controls(sentence).replace("\n", " ").encode()
        with self.path.open("ab", buffering=0) as file:
            _write(file.fileno(), b"0%d [microjobs] %s\n" % (time.time() * 1000, text))

    def begin(self) -> None:
        """Say that another host goes on here; its lines are counted from now on."""
        if self.size() > 0:
            self.note(BEGIN)

    def known(self) -> int:
        """How many lines of its present host it has."""
        if self.size() == 0:
            return 0
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = _begun(content)
            lines = sum(content[at : at + _BLOCK].count(b"\n") for at in range(start, len(content), _BLOCK))
            return lines - sum(1 for _ in _OWN.finditer(content, start))

    def events(self, start: int = 0) -> Iterator[LogEvent]:
        """Records from an offset on, until the last whole one."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            last = 0
            for record in file:
                if not record.endswith(b"\n"):
                    return
                mark, _, text = record[:-1].partition(b" ")
                stamp = mark.removesuffix(b"+")
                if not stamp.isdigit() or len(stamp) > MAX_STAMP_DIGITS:  # the rest of a line that was interrupted
                    mark, stamp, text = b"", b"%d" % last, record[:-1]
                last, end = int(stamp), start + len(record)
                is_own = mark.startswith(b"0") and len(mark) > 1
                yield LogEvent(last, text, start, end, is_whole=not mark.endswith(b"+"), is_own=is_own)
                start = end

    def is_start(self, offset: int) -> bool:
        """Whether a record begins at an offset, or would."""
        if offset == 0:
            return True
        if not 0 < offset <= self.size():
            return False
        with self.path.open("rb") as file:
            file.seek(offset - 1)
            return file.read(1) == b"\n"

    def before(self, end: int, most: int, wanted: Callable[[LogEvent], bool] = lambda _: True) -> list[LogEvent]:
        """The last wanted records before an offset, at most so many, read from the end of the file."""
        begin, events = end, list[LogEvent]()
        window = 1 << 16
        while begin > 0 and len(events) < most:
            begin = max(0, begin - window)
            events = [event for event in self._whole(begin) if event.end <= end and wanted(event)]
            window *= 4
        return events[-most:]

    def _whole(self, offset: int) -> Iterator[LogEvent]:
        """Records from the first one that begins at or after an offset."""
        if offset > 0:
            with self.path.open("rb") as file:
                file.seek(offset - 1)
                offset += len(file.readline()) - 1
        return self.events(offset)

    def whole_size(self) -> int:
        """Where the last whole record ends."""
        end = self.size()
        with self.path.open("rb") as file:
            while end > 0:
                begin = max(0, end - _BLOCK)
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
        last = self.before(self.size(), 1)
        return last[0].time if last else None


class LogStore:
    """All log groups and their streams, below one folder. Names may contain `/`, which are folders."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _folder(self, group: str) -> Path:
        return self._root / group.strip("/")

    def has_group(self, group: str) -> bool:
        return _is_inside(group.strip("/")) and self._folder(group).is_dir()

    def groups(self) -> list[str]:
        """Every group that has a stream."""
        patterns = sorted({kind.logs.group for kind in all_kinds() if kind.logs is not None})
        return [group for pattern in patterns for group in self._matching(pattern) if self.has_group(group)]

    def _matching(self, pattern: str) -> list[str]:
        """The groups that a pattern such as `/aws/sagemaker/Endpoints/{name}` may stand for, sorted."""
        parent, placeholder, _ = pattern.partition("{name}")
        folder = self._folder(parent)
        if not placeholder:
            return [pattern]
        return sorted(f"{parent}{path.name}" for path in folder.iterdir()) if folder.is_dir() else []

    def create(self, group: str, name: str) -> LogStream:
        stream = LogStream(self._folder(group) / name)
        stream.path.parent.mkdir(parents=True, exist_ok=True)
        stream.path.touch()
        return stream

    def stream(self, group: str, name: str) -> LogStream | None:
        """An existing stream, or None."""
        path = self._folder(group) / name
        return LogStream(path) if self.has_group(group) and _is_inside(name) and path.is_file() else None

    def streams(self, group: str, prefix: str = "") -> dict[str, LogStream]:
        """The group's streams whose names begin with a prefix, by name."""
        folder, (inner, slash, _) = self._folder(group), prefix.rpartition("/")
        if not self.has_group(group) or (slash and not _is_inside(inner)):
            return {}
        below = folder / inner
        if not below.is_dir():
            return {}
        names = (f"{inner}{slash}{found.name}" for found in walk(below) if found.type is FileType.FILE)
        return {name: LogStream(folder / name) for name in sorted(names) if name.startswith(prefix)}


def _record(line: Line) -> bytes:
    mark = b"" if line.is_whole else b"+"
    return b"%d%s %s\n" % (line.time * 1000, mark, line.text.replace(b"\n", b"\r"))


def _begun(content: mmap.mmap) -> int:
    """Where the records of the present host begin."""
    sentence, end = f" [microjobs] {BEGIN}\n".encode(), len(content)
    while (found := content.rfind(sentence, 0, end)) >= 0:
        stamp = content[content.rfind(b"\n", 0, found) + 1 : found]
        if stamp.startswith(b"0") and stamp.isdigit():  # else a host has said so
            return found + len(sentence)
        end = found
    return 0


def _write(file: int, record: bytes) -> None:
    """Write all of it, as soon as there is space."""
    rest = memoryview(record)
    with _locked(file):
        while rest:
            try:
                rest = rest[os.write(file, rest) :]
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                time.sleep(FULL_SECONDS)


@contextmanager
def _locked(file: int) -> Iterator[None]:
    """So that no other's line, such as one of the server's own, comes into one that waits for space."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _is_inside(name: str) -> bool:
    """Whether a name is a path below the folder that it is put to: what a client sends may be absolute, or anything."""
    segments = name.split("/")
    return "\0" not in name and {"", ".", ".."}.isdisjoint(segments) and max(map(_bytes, segments)) <= MOST_NAME_BYTES


def _bytes(segment: str) -> int:
    return len(segment.encode())
