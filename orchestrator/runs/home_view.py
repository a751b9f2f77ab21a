"""The view of a local server's home.

It reads the files of the home, even if no server runs, and starts no server. It imports neither boto3 nor docker.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from microjobs_orchestrator.failures import CommandError, UsageError
from microjobs_orchestrator.local.home import HOME_VARIABLE, Home
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.runs.kinds import KINDS, Kind, Members
from microjobs_orchestrator.runs.logs import LogEvent, Tail
from microjobs_orchestrator.runs.view import Filter, ResourceRow, View

POLL_INTERVAL = 0.25
PAGE_LINES = 10_000
"""The maximum number of lines in a page, as in GetLogEvents."""
MAX_TIME = 253_402_300_799
"""The end of the year 9999, in seconds since 1970."""


def explain_missing_jobs(home: Home) -> str:
    return (
        f"{home.root} has no jobs: run this command in the folder where you started them, or set {HOME_VARIABLE} to "
        "the .microjobs of that folder"
    )


def require_state(home: Home) -> None:
    """Check that a server has run for the home.

    Raises:
        UsageError: no server has run.
        HomeError: other users own the folder or can replace it.
    """
    if os.path.lexists(home.root):
        home.check()
    if not home.state.exists():
        raise UsageError(explain_missing_jobs(home))


class HomeView(View):
    poll_interval = POLL_INTERVAL

    def __init__(self, home: Home) -> None:
        self._home = home
        self.source = str(home.root)

    def list_newest(self, row_filter: Filter) -> list[ResourceRow]:
        with self._open_database() as database:
            return row_filter.select_newest(
                row for kind in row_filter.list_matching_kinds() for row in _select_rows(database, kind, row_filter)
            )

    def find(self, name: str) -> tuple[Kind, Members]:
        try:
            return super().find(name)
        except UsageError:
            require_state(self._home)
            raise

    def describe(self, kind: Kind, name: str) -> Members | None:
        query = "SELECT description FROM resources WHERE kind = ? AND name = ?"
        with self._open_database() as database:
            row = database.execute(query, (kind.arn_type, name)).fetchone()
        try:
            return None if row is None else json.loads(row[0])
        except (ValueError, TypeError, RecursionError):  # the row is damaged
            return None

    def open_tail(self, kind: Kind, name: str) -> Tail:
        return HomeTail(kind, name, LogStore(self._home.logs))

    def make_warning(self, *, shows_running: bool) -> str:
        if self._is_empty():
            return explain_missing_jobs(self._home)
        if shows_running and not self.can_change:
            return (
                f"no server runs for {self.source}: its next start resumes the jobs that have not ended, or marks them "
                "as Failed"
            )
        return ""

    def _is_empty(self) -> bool:
        """Return whether the home has neither jobs nor endpoints."""
        placeholders = ", ".join("?" * len(KINDS))
        query = f"SELECT 1 FROM resources WHERE kind IN ({placeholders}) LIMIT 1"  # noqa: S608  the placeholders are question marks
        with self._open_database() as database:
            return database.execute(query, [kind.arn_type for kind in KINDS]).fetchone() is None

    @property
    def can_change(self) -> bool:
        """Whether the process that server.json names is alive: only a running server changes resources."""
        try:
            os.kill(json.loads(self._home.server_file.read_text())["pid"], 0)
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return False
        return True

    @contextmanager
    def _open_database(self) -> Iterator[sqlite3.Connection]:
        """Open the state without creating or changing a file. If there is no state, yield an empty database."""
        path = self._home.state
        try:
            with closing(sqlite3.connect(_make_database_uri(self._home), uri=True)) as database:
                database.text_factory = lambda content: content.decode(errors="replace")
                if not path.exists():
                    database.execute("CREATE TABLE resources (kind, name, status, created, modified, description)")
                yield database
        except sqlite3.Error as error:
            raise CommandError(f"{path} cannot be read ({error}): `microjobs local up` reports the damage") from error


def _make_database_uri(home: Home) -> str:
    """Return SQLite's URI of the state."""
    if not home.state.exists():
        return "file::memory:"
    if home.state.with_name(f"{home.state.name}-wal").exists():
        return f"{home.state.as_uri()}?mode=ro"
    # Without a `-wal` file, no server runs, so the state does not change, and `immutable` is allowed. Without
    # `immutable`, SQLite would create files next to the state.
    return f"{home.state.as_uri()}?immutable=1"


def _select_rows(database: sqlite3.Connection, kind: Kind, row_filter: Filter) -> list[ResourceRow]:
    """Return the newest rows of one kind, without damaged rows."""
    statuses = (row_filter.status,) if row_filter.status else row_filter.list_statuses(kind)
    placeholders = ", ".join("?" * len(statuses))
    content = "iif(json_valid(description), description, '{}')"
    condition = f"AND (status IN ({placeholders}) OR secondary IN ({placeholders}))" if statuses else ""
    query = f"""
        SELECT name, status, created, modified, json_extract({content}, ?) AS ended,
               coalesce(json_extract({content}, '$.SecondaryStatus'), '') AS secondary
        FROM resources WHERE kind = ? AND instr(name, ?) > 0 AND json_valid(description) {condition}
              AND created BETWEEN 0 AND {MAX_TIME}
        ORDER BY created DESC LIMIT ?
    """  # noqa: S608  the parts are constants
    end_member = kind.lifecycle.end_member or "none"
    values = (f"$.{end_member}", kind.arn_type, row_filter.name, *statuses, *statuses, row_filter.limit)
    return [
        ResourceRow(kind, name, status, _to_time(created), _find_end_time(kind, status, ended, modified), secondary)
        for name, status, created, modified, ended, secondary in database.execute(query, values)
    ]


def _find_end_time(kind: Kind, status: str, ended: object, modified: object) -> datetime | None:
    """Return the time of a resource's end; None if the resource has not ended.

    If no member of the description states the time, as for executions of pipelines, it is the time of the last change.
    """
    lifecycle = kind.lifecycle
    has_ended = (
        not lifecycle.runs_until_deleted and not lifecycle.end_member and status not in lifecycle.transitional_statuses
    )
    end_time = modified if has_ended else ended
    return _to_time(end_time) if isinstance(end_time, int | float) and _is_time(end_time) else None


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= MAX_TIME


def _to_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass
class HomeTail(Tail):
    """A tail that reads the log files of a home."""

    store: LogStore

    def _list_streams(self) -> list[str]:
        return list(self.store.streams(self.group, self.prefix))

    def _read_page(self, stream: str) -> Iterator[LogEvent]:
        file = self.store.stream(self.group, stream)
        if file is None:  # the log file was removed after it was listed
            return
        for event in islice(file.events(self.positions.get(stream, 0)), PAGE_LINES):
            self.positions[stream] = event.end
            yield LogEvent.from_message(stream.removeprefix(self.prefix), event.time, event.message)
