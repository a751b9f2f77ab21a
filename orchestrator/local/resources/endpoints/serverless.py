"""Serverless variants: their settings, their changes, and the errors of their requests.

https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.runtimes.base import HostLimits

SERVERLESS_CONFIG = "ServerlessConfig"
"""The member that makes a variant serverless."""
STARTUP_TIMEOUT = 180
"""Seconds until `/ping` of a serverless variant must answer 200."""
MEMORY_STEP_MB = 1024
MAX_BODY_BYTES = 4 << 20
"""Maximum size of a request, and of a response."""


@dataclass(frozen=True)
class ServerlessSettings:
    """The settings of a ServerlessConfig that can change while the variant serves."""

    max_concurrency: int
    provisioned_concurrency: int
    """If it is 0, the container runs only while there are requests."""

    @classmethod
    def read(cls, variant: Mapping[str, Any]) -> "ServerlessSettings":
        config = variant[SERVERLESS_CONFIG]
        return cls(config["MaxConcurrency"], config.get("ProvisionedConcurrency", 0))


def stops_when_idle(variant: Mapping[str, Any]) -> bool:
    """Return whether the container of a variant runs only while there are requests."""
    return SERVERLESS_CONFIG in variant and ServerlessSettings.read(variant).provisioned_concurrency == 0


def make_limits(variant: Mapping[str, Any]) -> HostLimits | None:
    """Return the limits of a variant's container; None if the variant is not serverless."""
    return (
        HostLimits(memory_bytes=variant[SERVERLESS_CONFIG]["MemorySizeInMB"] << 20)
        if SERVERLESS_CONFIG in variant
        else None
    )


def check_config(config: Mapping[str, Any]) -> None:
    """Raise ValidationError for wrong numbers in a ServerlessConfig."""
    memory, concurrency = config["MemorySizeInMB"], config["MaxConcurrency"]
    if memory % MEMORY_STEP_MB:
        raise ValidationError(f"MemorySizeInMB {memory} must be a multiple of {MEMORY_STEP_MB}.")
    if (provisioned := config.get("ProvisionedConcurrency", 0)) > concurrency:
        raise ValidationError(f"ProvisionedConcurrency {provisioned} must not exceed MaxConcurrency {concurrency}.")


def change_config(variant: Mapping[str, Any], update: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the changed members of a variant for a ServerlessUpdateConfig.

    Raise ValidationError for wrong numbers, or if the variant is not serverless.
    """
    if SERVERLESS_CONFIG not in variant:
        message = f"Variant {variant['VariantName']} is not serverless: use DesiredInstanceCount."
        raise ValidationError(message)
    config = {**variant[SERVERLESS_CONFIG], **update}
    check_config(config)
    return {SERVERLESS_CONFIG: config}


def make_throttling_error(variant: str, limit: int) -> ServiceError:
    """Return the error of a request that exceeds MaxConcurrency. SDKs retry it."""
    message = f"Rate exceeded: the serverless variant {variant} processes at most {limit} requests at once."
    return ServiceError("ThrottlingException", message, HTTPStatus.TOO_MANY_REQUESTS)


def make_not_ready_error(variant: str, seconds: float) -> ServiceError:
    """Return the error of a request that timed out while it waited for the container. SDKs retry it."""
    message = f"The container of the serverless variant {variant} did not start within {seconds:g} s: try again."
    return ServiceError("ModelNotReadyException", message, HTTPStatus.TOO_MANY_REQUESTS)


def make_size_error(variant: str) -> ServiceError:
    message = f"Body is too large: a request to the serverless variant {variant} has at most {MAX_BODY_BYTES} bytes."
    return ServiceError("ValidationError", message)
