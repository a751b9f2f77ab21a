"""Read-only views of jobs, endpoints and logs, for commands that change nothing.

The view of a home reads its files, with or without a server: it starts none, and it imports neither boto3 nor docker.
"""

import json
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.failures import LauncherError, UsageError
from microjobs_orchestrator.local.home import HOME, Home
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.runs.kinds import ENDPOINT, KINDS, TRAINING, Kind, Members, not_found
from microjobs_orchestrator.runs.logs import Event, LogTail, Tail

if TYPE_CHECKING:
    from microjobs_orchestrator.runs.backend import Backend

POLL_SECONDS = 0.25
PAGE_LINES = 10_000
"""As GetLogEvents."""


@dataclass(frozen=True)
class ResourceRow:
    """One row of a listing."""

    kind: Kind
    name: str
    status: str
    created: datetime
    ended: datetime | None
    secondary: str = ""
    """A training job's SecondaryStatus."""

    @property
    def full_status(self) -> str:
        """Both statuses where they differ: `InProgress: Interrupted`."""
        return f"{self.status}: {self.secondary}" if self.secondary not in ("", self.status) else self.status


@dataclass(frozen=True)
class Filter:
    """Selects rows of a listing."""

    limit: int = 20
    kinds: tuple[Kind, ...] = KINDS
    name: str = ""
    """A part of the name."""
    status: str = ""
    """A status, or a training job's secondary status."""
    running: bool = False
    """Only jobs that have not ended, and endpoints in service."""

    def statuses(self, kind: Kind) -> tuple[str, ...]:
        """The statuses to ask for; none stands for all."""
        if self.status:
            return (self.status,) if self.status in kind.statuses else ()
        if self.running:
            return (*kind.going, kind.good) if kind is ENDPOINT else kind.going
        return ()

    def takes(self, row: ResourceRow) -> bool:
        if self.status:
            return self.status in (row.status, row.secondary)
        return not self.running or row.status in self.statuses(row.kind)

    def excludes(self, kind: Kind) -> bool:
        """Whether no row of the kind can be selected."""
        return bool(self.status) and self.status not in kind.statuses and kind is not TRAINING

    def newest(self, rows: Iterable[ResourceRow]) -> list[ResourceRow]:
        return sorted(rows, key=lambda row: row.created, reverse=True)[: self.limit]


LAST_TIME = 253_402_300_799
"""The end of the year 9999, in seconds since 1970."""


class View(ABC):
    """What reading commands need of a backend."""

    where: str
    """For people: a folder, or a region of AWS."""
    poll: float

    @abstractmethod
    def newest(self, wanted: Filter) -> list[ResourceRow]:
        """The newest rows that the filter selects, newest first."""

    @abstractmethod
    def describe(self, kind: Kind, name: str) -> Members | None:
        """The description, or None if there is no such resource."""

    @abstractmethod
    def tail(self, kind: Kind, name: str) -> Tail: ...

    def advice(self, *, going: bool) -> str:  # noqa: ARG002  for those that need it
        """A sentence for people on how far the answers can be relied on; empty where nothing is to be said.

        Args:
            going: something was shown that has not ended.
        """
        return ""

    @property
    def advances(self) -> bool:
        """Whether something may change while one waits."""
        return True

    def not_found(self, name: str) -> UsageError:
        return not_found(name, f" in {self.where}")

    def need(self, name: str) -> tuple[Kind, Members]:
        """The resource of that name, whatever its kind; one that has not ended before one that has.

        Raises:
            UsageError: there is nothing of that name.
        """
        found = [(kind, answer) for kind in KINDS if (answer := self.describe(kind, name)) is not None]
        if not found:
            raise self.not_found(name)
        return next((pair for pair in found if pair[1][pair[0].status] in pair[0].going), found[0])


def no_jobs(home: Home) -> str:
    return f"{home.root} has no jobs: run this where they were started, or set {HOME} to that folder's .microjobs"


def need_state(home: Home) -> None:
    """Check that a server has run for the folder.

    Raises:
        UsageError: none has.
        HomeError: other users own the folder or can replace it.
    """
    if os.path.lexists(home.root):
        home.check()
    if not home.state.exists():
        raise UsageError(no_jobs(home))


class HomeView(View):
    """The view of a local server's folder."""

    poll = POLL_SECONDS

    def __init__(self, home: Home) -> None:
        self._home = home
        self.where = str(home.root)

    def newest(self, wanted: Filter) -> list[ResourceRow]:
        with self._database() as database:
            kinds = [kind for kind in wanted.kinds if not wanted.excludes(kind)]
            return wanted.newest(row for kind in kinds for row in _rows(database, kind, wanted))

    def not_found(self, name: str) -> UsageError:
        need_state(self._home)
        return super().not_found(name)

    def describe(self, kind: Kind, name: str) -> Members | None:
        query = "SELECT description FROM resources WHERE kind = ? AND name = ?"
        with self._database() as database:
            row = database.execute(query, (kind.arn_type, name)).fetchone()
        try:
            return None if row is None else json.loads(row[0])
        except (ValueError, TypeError, RecursionError):  # a damaged row
            return None

    def tail(self, kind: Kind, name: str) -> Tail:
        return HomeTail(kind.log_group(name), kind.log_prefix(name), LogStore(self._home.logs))

    def advice(self, *, going: bool) -> str:
        if self._is_empty():
            return no_jobs(self._home)
        if going and not self.advances:
            return f"no server runs for {self.where}: its next start resumes what has not ended, or marks it Failed"
        return ""

    def _is_empty(self) -> bool:
        """Whether the folder has neither jobs nor endpoints."""
        marks = ", ".join("?" * len(KINDS))
        query = f"SELECT 1 FROM resources WHERE kind IN ({marks}) LIMIT 1"  # noqa: S608  the marks are constants
        with self._database() as database:
            return database.execute(query, [kind.arn_type for kind in KINDS]).fetchone() is None

    @property
    def advances(self) -> bool:
        """Whether the process that says it serves the folder is alive."""
        try:
            os.kill(json.loads(self._home.server.read_text())["pid"], 0)
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return False
        return True

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """The state, opened so that nothing is created or changed; an empty one if there is no state.

        Raises:
            LauncherError: the file is damaged.
        """
        path = self._home.state
        if not path.exists():
            address = "file::memory:"
        elif path.with_name(f"{path.name}-wal").exists():
            address = f"{path.as_uri()}?mode=ro"
        else:  # nobody writes; without `immutable` SQLite would create files beside it
            address = f"{path.as_uri()}?immutable=1"
        try:
            with closing(sqlite3.connect(address, uri=True)) as database:
                database.text_factory = lambda content: content.decode(errors="replace")
                if not path.exists():
                    database.execute("CREATE TABLE resources (kind, name, status, created, description)")
                yield database
        except sqlite3.Error as error:
            raise LauncherError(f"{path} cannot be read ({error}): `microjobs local up` says more") from error


def _rows(database: sqlite3.Connection, kind: Kind, wanted: Filter) -> list[ResourceRow]:
    """The newest rows of one kind, without damaged ones."""
    statuses = (wanted.status,) if wanted.status else wanted.statuses(kind)
    marks = ", ".join("?" * len(statuses))
    content = "iif(json_valid(description), description, '{}')"
    narrowed = f"AND (status IN ({marks}) OR secondary IN ({marks}))" if statuses else ""
    query = f"""
        SELECT name, status, created, json_extract({content}, ?) AS ended,
               coalesce(json_extract({content}, '$.SecondaryStatus'), '') AS secondary
        FROM resources WHERE kind = ? AND instr(name, ?) > 0 AND json_valid(description) {narrowed}
              AND created BETWEEN 0 AND {LAST_TIME}
        ORDER BY created DESC LIMIT ?
    """  # noqa: S608  the parts are constants
    values = (f"$.{kind.ended or 'none'}", kind.arn_type, wanted.name, *statuses, *statuses, wanted.limit)
    return [
        ResourceRow(kind, name, status, _time(created), _time(ended) if _is_time(ended) else None, secondary)
        for name, status, created, ended, secondary in database.execute(query, values)
    ]


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= LAST_TIME


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass
class HomeTail(Tail):
    """A tail that reads a home's log files."""

    store: LogStore
    offsets: dict[str, int] = field(default_factory=dict)

    def _positions(self) -> Mapping[str, object]:
        return dict(self.offsets)

    def _streams(self) -> list[str]:
        return list(self.store.streams(self.group, self.prefix))

    def _page(self, stream: str) -> Iterator[Event]:
        file = self.store.stream(self.group, stream)
        if file is None:  # removed meanwhile
            return
        for event in islice(file.events(self.offsets.get(stream, 0)), PAGE_LINES):
            self.offsets[stream] = event.end
            yield Event.of(stream.removeprefix(self.prefix), event.time, event.message)


class BackendView(View):
    """The view of a backend that answers requests, such as AWS."""

    def __init__(self, backend: "Backend", where: str) -> None:
        self._backend = backend
        self.where = where
        self.poll = backend.poll

    def newest(self, wanted: Filter) -> list[ResourceRow]:
        kinds = [kind for kind in wanted.kinds if not wanted.excludes(kind)]
        asked = ((kind, status) for kind in kinds for status in wanted.statuses(kind) or ("",))
        return wanted.newest(
            row
            for kind, status in asked
            for row in islice(filter(wanted.takes, self._list(kind, status, wanted)), wanted.limit)
        )

    def _list(self, kind: Kind, status: str, wanted: Filter) -> Iterator[ResourceRow]:
        """Rows, newest first, page by page: AWS counts a page's rows before it filters them."""
        filters = {"StatusEquals": status, "NameContains": wanted.name}
        request = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": min(wanted.limit, 100)}
        client: Any = self._backend.sagemaker  # its stubs know no operation but by a literal
        paginator = client.get_paginator(f"list-{kind.arn_type}s".replace("-", "_"))
        for page in paginator.paginate(**request, **{name: value for name, value in filters.items() if value}):
            for row in next(value for value in page.values() if isinstance(value, list)):
                created, ended = row["CreationTime"], row.get(kind.ended)
                secondary = row.get("SecondaryStatus", "")
                yield ResourceRow(kind, row[kind.name], row[kind.status], created, ended, secondary)

    def describe(self, kind: Kind, name: str) -> Members | None:
        return kind.describe(self._backend.sagemaker, name)

    def tail(self, kind: Kind, name: str) -> Tail:
        return LogTail.of(self._backend.logs, kind, name)
