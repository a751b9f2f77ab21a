"""Decides what happens to every member of every request: honoured, without meaning here, or refused.

One table for all services, in the form of the requests. A test compares it with botocore's models, and
docs/maintaining/parity.md is generated from it.
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.parity.hosting import (
    CREATE_ENDPOINT,
    CREATE_ENDPOINT_CONFIG,
    CREATE_MODEL,
    CREATE_TRANSFORM_JOB,
    UPDATE_ENDPOINT,
    UPDATE_WEIGHTS,
)
from microjobs_orchestrator.local.parity.identity import ECR, IAM, STS
from microjobs_orchestrator.local.parity.logs import LOGS
from microjobs_orchestrator.local.parity.processing import CREATE_PROCESSING_JOB
from microjobs_orchestrator.local.parity.reading import READING
from microjobs_orchestrator.local.parity.refusal import refusals
from microjobs_orchestrator.local.parity.rows import Rows
from microjobs_orchestrator.local.parity.runtime import RUNTIME
from microjobs_orchestrator.local.parity.s3 import S3
from microjobs_orchestrator.local.parity.training import CREATE_TRAINING_JOB, CREATE_TUNING_JOB, UPDATE_TRAINING_JOB

SAGEMAKER: dict[str, Rows] = {
    "CreateProcessingJob": CREATE_PROCESSING_JOB,
    "CreateTrainingJob": CREATE_TRAINING_JOB,
    "UpdateTrainingJob": UPDATE_TRAINING_JOB,
    "CreateHyperParameterTuningJob": CREATE_TUNING_JOB,
    "CreateModel": CREATE_MODEL,
    "CreateEndpointConfig": CREATE_ENDPOINT_CONFIG,
    "CreateEndpoint": CREATE_ENDPOINT,
    "UpdateEndpoint": UPDATE_ENDPOINT,
    "UpdateEndpointWeightsAndCapacities": UPDATE_WEIGHTS,
    "CreateTransformJob": CREATE_TRANSFORM_JOB,
    **READING,
}

TABLE: Mapping[str, Mapping[str, Rows]] = {
    "sagemaker": SAGEMAKER,
    "sagemaker-runtime": RUNTIME,
    "s3": S3,
    "logs": LOGS,
    "sts": STS,
    "iam": IAM,
    "ecr": ECR,
}
"""Rows for each member of each supported operation, by botocore's name of the service."""

CODES: Mapping[str, tuple[str, int]] = {
    "sagemaker": ("ValidationException", 400),
    "sagemaker-runtime": ("ValidationError", 400),
    "s3": ("NotImplemented", 501),
    "logs": ("InvalidParameterException", 400),
    "sts": ("ValidationError", 400),
    "iam": ("ValidationError", 400),
    "ecr": ("InvalidParameterException", 400),
}
"""Each service's error code and HTTP status for a request that it does not accept."""


def refuse(service: str, operation: str, params: Mapping[str, Any]) -> None:
    """Refuse a request that is valid on AWS and asks for something that is not supported.

    Raises:
        ServiceError: names each such member, its value, and the reason or what to do instead.
    """
    found = refusals(TABLE[service][operation], params)
    if found:
        code, status = CODES[service]
        raise ServiceError(code, "Not supported here: " + "; ".join(found), status)
