"""Cache and retry policies of steps.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-retry-policy.html and
https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-caching-enabling.html
"""

import re
from datetime import timedelta
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.messages import make_error, make_name_hint, quote
from microjobs_orchestrator.local.resources.pipelines.definition.structures import Structure
from microjobs_orchestrator.local.resources.pipelines.definition.values import CacheConfig, RetryPolicy

EXCEPTION_TYPES = (
    "Step.SERVICE_FAULT",
    "Step.THROTTLING",
    "SageMaker.JOB_INTERNAL_ERROR",
    "SageMaker.CAPACITY_ERROR",
    "SageMaker.RESOURCE_LIMIT",
)
DEFAULT_ATTEMPTS, MAX_ATTEMPTS = 5, 20
"""Default and maximum value of the member MaxAttempts, which is the number of retries."""
MAX_EXPIRY_MINUTES = 14400
MAX_INTERVAL_SECONDS = 43200
MAX_BACKOFF_RATE = 1000
"""Maximum values of the members ExpireAfterMin, IntervalSeconds and BackoffRate of a retry policy."""

_DURATION_PATTERN = re.compile(
    r"P?(?:(?P<years>\d{1,4})Y)?(?:(?P<months>\d{1,4})M)?(?:(?P<weeks>\d{1,5})W)?(?:(?P<days>\d{1,6})D)?"
    r"(?:T(?:(?P<hours>\d{1,7})H)?(?:(?P<minutes>\d{1,8})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,9})?)S)?)?",
    re.IGNORECASE,
)
_DAYS_PER_UNIT = {"years": 365, "months": 30, "weeks": 7, "days": 1}


def parse_duration(text: str) -> timedelta | None:
    """Return an ISO 8601 duration such as `P30D`, or None if the text is not valid.

    A year has 365 days and a month has 30. As in the SDK's examples, lower case is allowed, and P may be missing.
    """
    match = _DURATION_PATTERN.fullmatch(text)
    parts = {name: float(number) for name, number in match.groupdict().items() if number} if match else {}
    if not parts:
        return None
    days = sum(factor * parts.get(name, 0) for name, factor in _DAYS_PER_UNIT.items())
    times = {name: parts.get(name, 0) for name in ("hours", "minutes", "seconds")}
    return timedelta(days=days, **times)


def parse_cache(value: Any, place: str) -> CacheConfig:
    cache = Structure(value, place, ("Enabled", "ExpireAfter"), required_members=("Enabled",))
    expiry = cache.read_text("ExpireAfter")
    if expiry and parse_duration(expiry) is None:
        raise make_error(
            cache.locate_member("ExpireAfter"), f"{quote(expiry)} is not an ISO 8601 duration such as P30D"
        )
    return CacheConfig(cache.read_flag("Enabled"), expiry)


def parse_retry_policy(value: Any, place: str) -> RetryPolicy:
    members = ("ExceptionType", "IntervalSeconds", "BackoffRate", "MaxAttempts", "ExpireAfterMin")
    policy = Structure(value, place, members, required_members=("ExceptionType",))
    attempts = policy.read_number("MaxAttempts", minimum=0, maximum=MAX_ATTEMPTS)
    minutes = policy.read_number("ExpireAfterMin", minimum=0, maximum=MAX_EXPIRY_MINUTES)
    if attempts is not None and minutes is not None:
        raise make_error(place, "a retry policy has either MaxAttempts or ExpireAfterMin, not both")
    if attempts is None and minutes is None:
        attempts = DEFAULT_ATTEMPTS
    interval = policy.read_number("IntervalSeconds", minimum=0, maximum=MAX_INTERVAL_SECONDS)
    rate = policy.read_number("BackoffRate", minimum=0, maximum=MAX_BACKOFF_RATE, is_integer=False)
    return RetryPolicy(
        _read_exception_types(policy),
        1 if interval is None else interval,
        2.0 if rate is None else rate,
        None if attempts is None else int(attempts),
        None if minutes is None else int(minutes),
    )


def _read_exception_types(policy: Structure) -> tuple[str, ...]:
    names = policy.read_list("ExceptionType")
    for name in names:
        if name not in EXCEPTION_TYPES:
            hint = make_name_hint(str(name), EXCEPTION_TYPES)
            raise make_error(policy.locate_member("ExceptionType"), f"{quote(name)} does not exist ({hint})")
    return tuple(names)
