"""The time limits and the retries of a training job, which all of its attempts share.

A managed spot job starts over when its hosts are interrupted. A job with a RetryStrategy also starts over when its
hosts end, or cannot start, because of an error that the job did not cause. RetryStrategy limits the number of these
retries. All attempts together may use MaxRuntimeInSeconds on hosts. A spot job must also end within
MaxWaitTimeInSeconds of its creation. The internal state contains the time and the retries that the job has used, so
that a restarted server continues to count.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ValidationError

DEFAULT_MAX_RUNTIME_SECONDS = 86_400
"""Default time limit in seconds: one day, as on SageMaker."""

USAGE_KEY = "Attempts"
"""A key of the internal state. Its value has the fields of an `AttemptUsage`."""

FIRST_RETRY_DELAY_SECONDS, MAX_RETRY_DELAY_SECONDS = 1.0, 60.0
"""Seconds before the first retry, and the maximum for later retries. The delay doubles with each retry, so that an
engine has time to restart."""


def check(request: Mapping[str, Any]) -> None:
    """Raise ValidationError unless MaxWaitTimeInSeconds matches the other members of a training job's request."""
    limits = TimeLimits(request, Moment(0.0))
    if not limits.is_spot:
        if limits.max_wait_seconds < float("inf"):
            raise ValidationError(
                "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
            )
    elif not limits.max_runtime_seconds <= limits.max_wait_seconds < float("inf"):
        raise ValidationError(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
        )


@dataclass
class AttemptUsage:
    """The time and the retries that the attempts of a job have used."""

    ran: float = 0.0
    """Seconds for which earlier attempts ran on hosts."""
    since: Moment | None = None
    """The time at which the hosts of the current attempt started; None if no attempt runs."""
    retries: int = 0

    @classmethod
    def load(cls, internal: Mapping[str, Any]) -> "AttemptUsage":
        """Read the usage from an internal state."""
        fields = {**internal.get(USAGE_KEY, {})}
        if (since := fields.get("since")) is not None:  # an earlier version of the server stored a number
            fields["since"] = Moment.read(since, since if isinstance(since, float) else 0.0)
        return cls(**fields)

    def to_members(self) -> dict[str, Any]:
        """Return the key and the value of the usage in the internal state."""
        return {USAGE_KEY: asdict(self)}

    @property
    def used_seconds(self) -> float:
        """Seconds for which all attempts have run on hosts until now."""
        return self.ran + (self.since.elapsed() if self.since else 0.0)

    def end_attempt(self) -> None:
        """Count the time of the current attempt, whose hosts have ended."""
        self.ran, self.since = self.used_seconds, None

    @property
    def retry_delay_seconds(self) -> float:
        """Seconds before the current retry."""
        return min(MAX_RETRY_DELAY_SECONDS, FIRST_RETRY_DELAY_SECONDS * 2.0 ** max(0, self.retries - 1))


class TimeLimits:
    """The time and the retries that a request allows, for all attempts together."""

    def __init__(self, request: Mapping[str, Any], creation_moment: Moment) -> None:
        stopping_condition = request.get("StoppingCondition", {})
        self.is_spot: bool = request.get("EnableManagedSpotTraining", False)
        self.max_retries: int = request.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)
        self.max_runtime_seconds: float = stopping_condition.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_SECONDS)
        """Maximum number of seconds on hosts."""
        self.max_wait_seconds: float = stopping_condition.get("MaxWaitTimeInSeconds", float("inf"))
        """Maximum number of seconds since the job was created."""
        self._creation_moment = creation_moment

    def compute_remaining_seconds(self, usage: AttemptUsage) -> float:
        """Return the seconds that the job may still take."""
        return max(
            0.0,
            min(self.max_runtime_seconds - usage.used_seconds, self.max_wait_seconds - self._creation_moment.elapsed()),
        )

    def find_exceeded_status(self, usage: AttemptUsage) -> str:
        """Return the SecondaryStatus of a job that has no time left."""
        is_wait_limit_reached = (
            self.max_wait_seconds - self._creation_moment.elapsed() < self.max_runtime_seconds - usage.used_seconds
        )
        return "MaxWaitTimeExceeded" if is_wait_limit_reached else "MaxRuntimeExceeded"
