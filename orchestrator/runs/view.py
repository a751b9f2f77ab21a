"""Read-only views of jobs, endpoints and logs, for commands that change nothing."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.runs.kinds import KINDS, Kind, Members, list_owned_kinds_with_logs
from microjobs_orchestrator.runs.logs import Tail


@dataclass(frozen=True)
class ResourceRow:
    """One row of a listing."""

    kind: Kind
    name: str
    status: str
    creation_time: datetime
    end_time: datetime | None
    secondary_status: str = ""
    """The SecondaryStatus of a training job."""

    @property
    def full_status(self) -> str:
        """The status, followed by the secondary status if that differs: `InProgress: Interrupted`."""
        return (
            f"{self.status}: {self.secondary_status}" if self.secondary_status not in ("", self.status) else self.status
        )


@dataclass(frozen=True)
class Filter:
    """Selects rows of a listing."""

    limit: int = 20
    kinds: tuple[Kind, ...] = KINDS
    name: str = ""
    """Text that the name must contain; empty for any name."""
    status: str = ""
    """Required status or, for a training job, secondary status; empty for any status."""
    running: bool = False
    """Whether to select only jobs that have not ended, and endpoints that run or change."""

    def list_statuses(self, kind: Kind) -> tuple[str, ...]:
        """Return the statuses to query for a kind; an empty tuple selects all statuses.

        A secondary status cannot be queried. In this case, all statuses are queried, and `matches` selects the rows.
        """
        if self.status:
            return (self.status,) if self.status in kind.lifecycle.statuses else ()
        if self.running:
            return kind.lifecycle.active_statuses
        return ()

    def matches(self, row: ResourceRow) -> bool:
        if self.status:
            return self.status in (row.status, row.secondary_status)
        return not self.running or row.status in self.list_statuses(row.kind)

    def list_matching_kinds(self) -> list[Kind]:
        """Return the kinds that can have a matching row."""
        return [
            kind
            for kind in self.kinds
            if not self.status or self.status in (*kind.lifecycle.statuses, *kind.lifecycle.secondary_statuses)
        ]

    def select_newest(self, rows: Iterable[ResourceRow]) -> list[ResourceRow]:
        return sorted(rows, key=lambda row: row.creation_time, reverse=True)[: self.limit]


class View(ABC):
    """Lists and describes resources, and reads their logs."""

    source: str
    """Name of the source, for messages: a folder or an AWS region."""
    poll_interval: float
    """Seconds between two polls."""

    @abstractmethod
    def list_newest(self, row_filter: Filter) -> list[ResourceRow]:
        """Return the newest rows that the filter selects, newest first."""

    @abstractmethod
    def describe(self, kind: Kind, name: str) -> Members | None:
        """Return the description, or None if the resource does not exist."""

    @abstractmethod
    def open_tail(self, kind: Kind, name: str) -> Tail: ...

    def list_tails(self, kind: Kind, name: str) -> list[Tail]:
        """Return the tail of a resource's log. If the resource has no log of its own, return one tail for each kind of
        the jobs that it creates."""
        if kind.logs is not None:
            return [self.open_tail(kind, name)]
        return [self.open_tail(owned, name) for owned in list_owned_kinds_with_logs(kind)]

    def make_warning(self, *, shows_running: bool) -> str:  # noqa: ARG002  the method of HomeView uses it
        """Return a warning about the output of a command, or an empty text.

        Args:
            shows_running: whether the output has resources that have not ended.
        """
        return ""

    @property
    def can_change(self) -> bool:
        """Whether the resources can change while a command follows a log."""
        return True

    def find(self, name: str) -> tuple[Kind, Members]:
        """Return the kind and the description of the resource with this name.

        If resources of several kinds have the name, prefer a resource in a transitional status, such as InProgress.

        Raises:
            UsageError: no resource has the name.
        """
        resources = [(kind, members) for kind in KINDS if (members := self.describe(kind, name)) is not None]
        if not resources:
            raise UsageError(f"no job or endpoint in {self.source} is called {name}: `microjobs ps` lists them")
        changing_resources = (
            (kind, members)
            for kind, members in resources
            if members[kind.status_member] in kind.lifecycle.transitional_statuses
        )
        return next(changing_resources, resources[0])
