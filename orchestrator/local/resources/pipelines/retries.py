"""Retries of steps that failed, by their retry policies.

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
CODES = {"ThrottlingException": THROTTLING, "ResourceLimitExceeded": RESOURCE_LIMIT}
"""Types of failures by the error codes of Create requests."""
REASONS = {INTERNAL_ERROR: JOB_INTERNAL_ERROR, "CapacityError": CAPACITY_ERROR}
"""Types of failures by the beginning of a job's FailureReason."""
SERVER_ERROR = 500
"""The lowest HTTP status of errors that the request did not cause."""


def make_refusal(error: ServiceError) -> Failure:
    """Return the failure of a step whose Create request was refused."""
    fault = SERVICE_FAULT if error.status >= SERVER_ERROR else ""
    return Failure(make_failure_reason(error), CODES.get(error.code, fault))


def read_failure(record: Record) -> Failure:
    """Return the failure of a job."""
    reason = str(record.description.get("FailureReason") or f"{record.kind} {record.name} is {record.status}.")
    return Failure(reason, next((name for prefix, name in REASONS.items() if reason.startswith(prefix)), ""))


def find_delay(run: StepRun, failure: Failure, now: float) -> float | None:
    """Return the seconds until the next attempt of a step; None if no policy allows another attempt.

    Args:
        now: the present time, in seconds since 1970.
    """
    for policy in run.step.retry_policies:
        if failure.exception_type in policy.exception_types and _allows(policy, run, now):
            return policy.interval_seconds * float(policy.backoff_rate) ** (run.attempts - 1)
    return None


def _allows(policy: RetryPolicy, run: StepRun, now: float) -> bool:
    if policy.max_attempts is not None:
        return run.attempts <= policy.max_attempts
    minutes = (now - float(run.record.description["StartTime"])) / 60
    return policy.expire_after_minutes is not None and minutes < policy.expire_after_minutes
