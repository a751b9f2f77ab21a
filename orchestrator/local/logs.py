"""The jobs' output, a file a log stream: `<milliseconds since 1970> <text>` a line, so that it can be read and grepped.

A position in a stream is a byte offset, which is what tokens carry.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GROUPS = {
    "training-job": "/aws/sagemaker/TrainingJobs",
    "processing-job": "/aws/sagemaker/ProcessingJobs",
    "transform-job": "/aws/sagemaker/TransformJobs",
}
"""The log group of each kind of job; an endpoint has one of its own."""


def endpoint_group(name: str) -> str:
    return f"/aws/sagemaker/Endpoints/{name}"


@dataclass(frozen=True)
class Event:
    """A line of output."""

    time: int
    """Milliseconds since 1970."""
    message: str
    start: int
    """Where its record begins in the stream's file."""
    end: int
    """Where the next one begins."""


class Stream:
    """One log stream, written by the one job host that it belongs to and read by anyone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def append(self, time: float, text: bytes) -> None:
        """Add a line; `time` in seconds since 1970."""
        record = b"%d %s\n" % (time * 1000, text.replace(b"\n", b"\r"))
        with self._lock, self.path.open("ab", buffering=0) as file:
            file.write(record)

    def events(self, start: int = 0) -> Iterator[Event]:
        """Records from an offset on, until the last whole one."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            for record in file:
                if not record.endswith(b"\n"):
                    return
                stamp, _, text = record[:-1].partition(b" ")
                yield Event(int(stamp), text.decode(errors="replace"), start, start + len(record))
                start += len(record)

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def first_time(self) -> int | None:
        return next((event.time for event in self.events()), None)

    def last_time(self) -> int | None:
        """Of the last line, found from the end of the file."""
        size = self.size()
        window = 4096
        while size:
            begin = max(0, size - window)
            with self.path.open("rb") as file:
                file.seek(begin)
                tail = file.read()
            lines = tail.rsplit(b"\n", 2)
            if len(lines) == 3 or begin == 0:
                record = lines[-2].rpartition(b"\n")[2] if len(lines) > 1 else b""
                return int(record.partition(b" ")[0]) if record else None
            window *= 16
        return None


class LogStore:
    """All log groups and their streams, below one folder. Names may contain `/`, which are folders."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _folder(self, group: str) -> Path:
        return self._root / group.strip("/")

    def has_group(self, group: str) -> bool:
        return _is_safe(group) and self._folder(group).is_dir()

    def groups(self) -> list[str]:
        """Every group that has a stream."""
        kinds = [group for group in GROUPS.values() if self.has_group(group)]
        endpoints = self._folder("/aws/sagemaker/Endpoints")
        names = sorted(path.name for path in endpoints.iterdir()) if endpoints.is_dir() else []
        return kinds + [endpoint_group(name) for name in names]

    def create(self, group: str, name: str) -> Stream:
        stream = Stream(self._folder(group) / name)
        stream.path.parent.mkdir(parents=True, exist_ok=True)
        stream.path.touch()
        return stream

    def stream(self, group: str, name: str) -> Stream | None:
        """An existing stream, or None."""
        path = self._folder(group) / name
        return Stream(path) if _is_safe(group) and _is_safe(name) and path.is_file() else None

    def streams(self, group: str, prefix: str = "") -> dict[str, Stream]:
        """The group's streams whose names begin with a prefix, by name."""
        folder = self._folder(group)
        if not self.has_group(group) or not _is_safe(prefix):
            return {}
        below = folder / prefix.rpartition("/")[0]
        found = (path for path in below.rglob("*") if path.is_file())
        named = ((path.relative_to(folder).as_posix(), path) for path in found)
        return {name: Stream(path) for name, path in sorted(named) if name.startswith(prefix)}


def _is_safe(name: str) -> bool:
    return "\0" not in name and ".." not in name.split("/")
