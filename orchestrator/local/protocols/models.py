"""Botocore's service models: which operations AWS has, and what their requests and answers hold."""

from functools import cache

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel


@cache
def service_model(service: str) -> ServiceModel:
    """The model of a service by botocore's name for it, such as `sagemaker-runtime`.

    Raises:
        botocore.exceptions.UnknownServiceError: botocore has none of that name.
    """
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


@cache
def operation_model(service: str, operation: str) -> OperationModel:
    """The model of an operation such as `CreateTrainingJob`.

    Raises:
        botocore.model.OperationNotFoundError: the service has none of that name.
    """
    return service_model(service).operation_model(operation)


def signing_name(service: str) -> str:
    """What clients of a service put into a signature's scope: `sagemaker` for `sagemaker-runtime`, too."""
    metadata = service_model(service).metadata
    return str(metadata.get("signingName", metadata["endpointPrefix"]))
