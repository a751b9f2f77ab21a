"""Retries of failed steps, as their retry policies define.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-retry-policy.html
"""

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.job import INTERNAL_ERROR, make_failure_reason
from microjobs_orchestrator.local.resources.pipelines.definition.values import RetryPolicy
from microjobs_orchestrator.local.resources.pipelines.step_run import Failure, StepRun
from microjobs_orchestrator.local.state import Record

SERVICE_FAULT, THROTTLING = "Step.SERVICE_FAULT", "Step.THROTTLING"
JOB_INTERNAL_ERROR, CAPACITY_ERROR = "SageMaker.JOB_INTERNAL_ERROR", "SageMaker.CAPACITY_ERROR"
RESOURCE_LIMIT = "SageMaker.RESOURCE_LIMIT"
EXCEPTION_TYPES_BY_CODE = {"ThrottlingException": THROTTLING, "ResourceLimitExceeded": RESOURCE_LIMIT}
"""Types of failures by the error codes of Create requests."""
EXCEPTION_TYPES_BY_REASON = {INTERNAL_ERROR: JOB_INTERNAL_ERROR, "CapacityError": CAPACITY_ERROR}
"""Types of failures by the beginning of a resource's FailureReason."""
MIN_SERVER_ERROR_STATUS = 500
"""The lowest HTTP status of errors that the request did not cause."""


def make_request_failure(error: ServiceError) -> Failure:
    """Return the failure of a step whose Create request was refused."""
    default_type = SERVICE_FAULT if error.status >= MIN_SERVER_ERROR_STATUS else ""
    return Failure(make_failure_reason(error), EXCEPTION_TYPES_BY_CODE.get(error.code, default_type))


def read_failure(record: Record) -> Failure:
    """Return the failure of a resource that a step created."""
    reason = str(record.description.get("FailureReason") or f"{record.kind} {record.name} is {record.status}.")
    return Failure(
        reason, next((name for prefix, name in EXCEPTION_TYPES_BY_REASON.items() if reason.startswith(prefix)), "")
    )


def find_retry_delay(run: StepRun, failure: Failure, now: float) -> float | None:
    """Return the seconds until the next attempt of a step; None if no policy allows another attempt.

    Args:
        now: the current time, in seconds since 1970.
    """
    for policy in run.step.retry_policies:
        if failure.exception_type in policy.exception_types and _allows_attempt(policy, run, now):
            return policy.interval_seconds * float(policy.backoff_rate) ** (run.attempt_count - 1)
    return None


def _allows_attempt(policy: RetryPolicy, run: StepRun, now: float) -> bool:
    if policy.max_attempts is not None:
        return run.attempt_count <= policy.max_attempts
    minutes = (now - float(run.record.description["StartTime"])) / 60
    return policy.expire_after_minutes is not None and minutes < policy.expire_after_minutes
