"""The time limits and the retries of a training job, which all of its attempts share.

A managed spot job starts over when its hosts are interrupted. Any job starts over when an error that it did not cause
ends its hosts. RetryStrategy limits the number of these retries. All attempts together may use MaxRuntimeInSeconds on
hosts. A spot job must also end within MaxWaitTimeInSeconds of its creation. The internal state contains the time and
the retries that the job has used, so that a restarted server continues to count.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ValidationError

DEFAULT_MAX_RUNTIME = 86_400
"""Seconds: one day, as on SageMaker."""

USAGE_KEY = "Attempts"
"""A key of the internal state, with the fields of a `Usage`."""

FIRST_RETRY_DELAY, MAX_RETRY_DELAY = 1.0, 60.0
"""Seconds before a retry. The delay doubles, so that an engine has time to restart."""


def check(request: Mapping[str, Any]) -> None:
    """Raise ValidationError unless MaxWaitTimeInSeconds matches the other members of a training job's request."""
    limits = TimeLimits(request, Moment(0.0))
    if not limits.is_spot:
        if limits.max_wait < float("inf"):
            raise ValidationError(
                "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
            )
    elif not limits.max_runtime <= limits.max_wait < float("inf"):
        raise ValidationError(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
        )


@dataclass
class Usage:
    """The time and the retries that the attempts of a job have used."""

    ran: float = 0.0
    """Seconds on hosts, in earlier attempts."""
    since: Moment | None = None
    """When the hosts of the present attempt started."""
    retries: int = 0

    @classmethod
    def load(cls, internal: Mapping[str, Any]) -> "Usage":
        """Read the usage from an internal state."""
        fields = {**internal.get(USAGE_KEY, {})}
        if (since := fields.get("since")) is not None:  # an earlier version stored a number
            fields["since"] = Moment.read(since, since if isinstance(since, float) else 0.0)
        return cls(**fields)

    def stored(self) -> dict[str, Any]:
        """Return the key and the value of the usage in the internal state."""
        return {USAGE_KEY: asdict(self)}

    @property
    def seconds(self) -> float:
        """Seconds on hosts until now."""
        return self.ran + (self.since.elapsed() if self.since else 0.0)

    def end_attempt(self) -> None:
        """Count the time of the present attempt, whose hosts have ended."""
        self.ran, self.since = self.seconds, None

    @property
    def retry_delay(self) -> float:
        """Seconds before the present retry."""
        return min(MAX_RETRY_DELAY, FIRST_RETRY_DELAY * 2.0 ** max(0, self.retries - 1))


class TimeLimits:
    """The time and the retries that a request allows, for all attempts together."""

    def __init__(self, request: Mapping[str, Any], created: Moment) -> None:
        stopping = request.get("StoppingCondition", {})
        self.is_spot: bool = request.get("EnableManagedSpotTraining", False)
        self.max_retries: int = request.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)
        self.max_runtime: float = stopping.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME)
        """Seconds on hosts."""
        self.max_wait: float = stopping.get("MaxWaitTimeInSeconds", float("inf"))
        """Seconds since the job was created."""
        self._created = created

    def remaining(self, usage: Usage) -> float:
        """Return the seconds that the job may still take."""
        return max(0.0, min(self.max_runtime - usage.seconds, self.max_wait - self._created.elapsed()))

    def exceeded_status(self, usage: Usage) -> str:
        """Return the SecondaryStatus of a job that has no time left."""
        is_wait_limit_reached = self.max_wait - self._created.elapsed() < self.max_runtime - usage.seconds
        return "MaxWaitTimeExceeded" if is_wait_limit_reached else "MaxRuntimeExceeded"
