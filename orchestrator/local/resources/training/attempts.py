"""How often a training job may start over, and for how long it may run in all. Source: facts §2.1, botocore's model.

A managed spot job starts over when its hosts are taken away, any job when it loses them to an error that is not its own
(RetryStrategy). All attempts together have MaxRuntimeInSeconds on hosts, and a spot job has MaxWaitTimeInSeconds from
its creation on. What they have used is in the job's internal state, so a restarted server knows it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ValidationError

DAY = 86_400

KEY = "Attempts"
"""Of the internal state."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Before a retry: an engine that is away must get the time to come back."""


def check(request: Mapping[str, Any]) -> None:
    """Raises ValidationError if MaxWaitTimeInSeconds does not go with the rest of a training job's request."""
    stopping = request.get("StoppingCondition", {})
    longest = stopping.get("MaxWaitTimeInSeconds")
    if not request.get("EnableManagedSpotTraining", False):
        if longest is not None:
            raise ValidationError(
                "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
            )
    elif longest is None or longest < stopping.get("MaxRuntimeInSeconds", DAY):
        raise ValidationError(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
        )


@dataclass
class Attempts:
    """What a job's attempts have used. Times are seconds."""

    ran: float = 0.0
    """On hosts, in earlier attempts."""
    since: Moment | None = None
    """When the hosts of the present attempt started."""
    retries: int = 0

    @classmethod
    def of(cls, internal: Mapping[str, Any]) -> "Attempts":
        members = {**internal.get(KEY, {})}
        if (since := members.get("since")) is not None:  # an earlier version stored a number
            members["since"] = Moment.read(since, since if isinstance(since, float) else 0.0)
        return cls(**members)

    def stored(self) -> dict[str, Any]:
        """For the internal state."""
        return {KEY: asdict(self)}

    @property
    def used(self) -> float:
        """The time on hosts until now."""
        return self.ran + (self.since.elapsed() if self.since else 0.0)

    def end(self) -> None:
        """The present attempt's hosts have ended."""
        self.ran, self.since = self.used, None

    @property
    def pause(self) -> float:
        """Before the present retry."""
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** max(0, self.retries - 1))


@dataclass(frozen=True)
class Limits:
    """What a request allows all attempts together."""

    spot: bool
    retries: int
    runtime: float
    """Seconds on hosts."""
    wait: float
    """Seconds from the job's creation on."""

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Limits":
        stopping = request.get("StoppingCondition", {})
        return cls(
            request.get("EnableManagedSpotTraining", False),
            request.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0),
            stopping.get("MaxRuntimeInSeconds", DAY),
            stopping.get("MaxWaitTimeInSeconds", float("inf")),
        )

    def left(self, attempts: Attempts, created: Moment) -> float:
        """Seconds that the job has yet."""
        return max(0.0, min(self.runtime - attempts.used, self.wait - created.elapsed()))

    def exceeded(self, attempts: Attempts, created: Moment) -> str:
        """The SecondaryStatus of a job that has no time left."""
        waited = self.wait - created.elapsed() < self.runtime - attempts.used
        return "MaxWaitTimeExceeded" if waited else "MaxRuntimeExceeded"
