"""Read-only views of jobs, endpoints and logs, for commands that change nothing."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.runs.kinds import KINDS, Kind, Members, name_error
from microjobs_orchestrator.runs.logs import Tail


@dataclass(frozen=True)
class ResourceRow:
    """One row of a listing."""

    kind: Kind
    name: str
    status: str
    created: datetime
    ended: datetime | None
    secondary: str = ""
    """The SecondaryStatus of a training job."""

    @property
    def full_status(self) -> str:
        """Both statuses if they differ: `InProgress: Interrupted`."""
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
        """Return the statuses to query for a kind; none stands for all."""
        if self.status:
            return (self.status,) if self.status in kind.statuses else ()
        if self.running:
            return kind.life.active
        return ()

    def matches(self, row: ResourceRow) -> bool:
        if self.status:
            return self.status in (row.status, row.secondary)
        return not self.running or row.status in self.statuses(row.kind)

    def matching_kinds(self) -> list[Kind]:
        """Return the kinds that can have a matching row."""
        return [kind for kind in self.kinds if not self.status or self.status in (*kind.statuses, *kind.life.secondary)]

    def newest(self, rows: Iterable[ResourceRow]) -> list[ResourceRow]:
        return sorted(rows, key=lambda row: row.created, reverse=True)[: self.limit]


class View(ABC):
    """Lists and describes resources, and reads their logs."""

    where: str
    """The source for the user: a folder, or a region of AWS."""
    poll_interval: float
    """Seconds."""

    @abstractmethod
    def newest(self, rows: Filter) -> list[ResourceRow]:
        """Return the newest rows that the filter selects, newest first."""

    @abstractmethod
    def describe(self, kind: Kind, name: str) -> Members | None:
        """Return the description, or None if the resource does not exist."""

    @abstractmethod
    def tail(self, kind: Kind, name: str) -> Tail: ...

    def warning(self, *, shows_running: bool) -> str:  # noqa: ARG002  overridden methods use it
        """Return a sentence for the user about what the listing does not show; empty if there is none.

        Args:
            shows_running: the listing has a resource that has not ended.
        """
        return ""

    @property
    def can_change(self) -> bool:
        """Whether the resources can change while the command waits."""
        return True

    def name_error(self, name: str) -> UsageError:
        return name_error(name, f" in {self.where}")

    def find(self, name: str) -> tuple[Kind, Members]:
        """Return the resource of a name, whatever its kind. One that has not ended precedes one that has.

        Raises:
            UsageError: no resource has the name.
        """
        found = [(kind, members) for kind in KINDS if (members := self.describe(kind, name)) is not None]
        if not found:
            raise self.name_error(name)
        return next((pair for pair in found if pair[1][pair[0].status_member] in pair[0].transitional), found[0])
