"""What becomes of every member of every SageMaker request: honoured, without meaning here, or refused.

One table, in the form of the requests; a test holds it against botocore's model, and docs/parity.md is made from it.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.local.parity.hosting import (
    CREATE_ENDPOINT,
    CREATE_ENDPOINT_CONFIG,
    CREATE_MODEL,
    CREATE_TRANSFORM_JOB,
    UPDATE_ENDPOINT,
    UPDATE_WEIGHTS,
)
from orchestrator.local.parity.processing import CREATE_PROCESSING_JOB
from orchestrator.local.parity.reading import READING
from orchestrator.local.parity.refusal import refuse_by
from orchestrator.local.parity.rows import Rows
from orchestrator.local.parity.training import CREATE_TRAINING_JOB, CREATE_TUNING_JOB

TABLE: dict[str, Rows] = {
    "CreateProcessingJob": CREATE_PROCESSING_JOB,
    "CreateTrainingJob": CREATE_TRAINING_JOB,
    "CreateHyperParameterTuningJob": CREATE_TUNING_JOB,
    "CreateModel": CREATE_MODEL,
    "CreateEndpointConfig": CREATE_ENDPOINT_CONFIG,
    "CreateEndpoint": CREATE_ENDPOINT,
    "UpdateEndpoint": UPDATE_ENDPOINT,
    "UpdateEndpointWeightsAndCapacities": UPDATE_WEIGHTS,
    "CreateTransformJob": CREATE_TRANSFORM_JOB,
    **READING,
}
"""The operations of SageMaker that are here, each with a row for every member of its request."""


def refuse(operation: str, params: Mapping[str, Any]) -> None:
    """Refuse a request that is valid on AWS and asks for what is not done here.

    Raises:
        ValidationError: names each such member, its value, and why or what to do instead.
    """
    refuse_by(TABLE[operation], params)
