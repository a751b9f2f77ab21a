"""Botocore's service models: the operations of AWS, and the members of their requests and results."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

CORRECTIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "s3": {
        # S3 stores and returns these dates as text, also invalid ones.
        "Expires": {"type": "string"},
        "ResponseExpires": {"type": "string"},
        # The list of regions lacks us-east-1.
        "BucketLocationConstraint": {"type": "string"},
        # S3 accepts bucket-owner-full-control for a bucket, too. The parity table decides which values are supported.
        "BucketCannedACL": {"type": "string"},
        # AWS's client for C++, which Arrow uses, sends the value in lower case.
        "ChecksumMode": {"type": "string", "enum": ["ENABLED", "enabled"]},
    },
    # The model still has the old limit of 6 MB. AWS now allows 25 MB, see
    # https://docs.aws.amazon.com/general/latest/gr/sagemaker.html.
    "sagemaker-runtime": {"BodyBlob": {"type": "blob", "max": 25 << 20}},
}
"""Shapes by service: they replace shapes of the service's model that differ from AWS's behaviour."""

_loader = Loader()
"""The loader of all models. Several loaders would be slower, because each one lists the folders of all services."""


@cache
def load_service_model(service: str) -> ServiceModel:
    """Return the model of a service by botocore's name for it, such as `sagemaker-runtime`.

    Raises:
        botocore.exceptions.UnknownServiceError: botocore has no service of that name.
    """
    model = dict(_loader.load_service_model(service, "service-2"))
    model["shapes"] = {**model["shapes"], **CORRECTIONS.get(service, {})}
    return ServiceModel(model, service)


@cache
def load_operation_model(service: str, operation: str) -> OperationModel:
    """Return the model of an operation such as `CreateTrainingJob`.

    Raises:
        botocore.model.OperationNotFoundError: the service has no operation of that name.
    """
    return load_service_model(service).operation_model(operation)


def get_signing_name(service: str) -> str:
    """Return a service's name in the scope of signatures, such as `sagemaker` for `sagemaker-runtime`."""
    metadata = load_service_model(service).metadata
    return str(metadata.get("signingName", metadata["endpointPrefix"]))
