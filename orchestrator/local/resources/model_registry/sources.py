"""SourceUri: the model or the package from which a new package gets its specification.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE
from microjobs_orchestrator.local.resources.model_registry.names import find_package
from microjobs_orchestrator.local.resources.models.containers import list_containers
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.multi_model import refuse_multi_model

SPECIFICATIONS = ("InferenceSpecification", "AdditionalInferenceSpecifications")
CONTAINER_MEMBERS = ("ContainerHostname", "Image", "ModelDataUrl", "ModelDataETag", "ModelDataSource", "Environment")
"""Members of a model's container that a package's container also has."""


def check_source(request: Mapping[str, Any]) -> None:
    """Raise ValidationError if a request has a SourceUri and an InferenceSpecification."""
    if "SourceUri" in request and "InferenceSpecification" in request:
        raise ValidationError(
            "SourceUri and InferenceSpecification cannot be combined in one request: set one, and then the other with "
            "UpdateModelPackage."
        )


def read_source(context: Context, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specifications of the package or the model whose ARN is the SourceUri; none for other URIs.

    Raise ValidationError if the request also has an InferenceSpecification, if the package or the model does not exist,
    or if the model has the Mode MultiModel.
    """
    check_source(request)
    uri = request.get("SourceUri", "")
    if f":{MODEL_PACKAGE.arn_type}/" in uri and uri.startswith("arn:"):
        description = find_package(context, uri).description
        return {name: description[name] for name in SPECIFICATIONS if name in description}
    if f":{MODEL.arn_type}/" in uri and uri.startswith("arn:"):
        return {"InferenceSpecification": {"Containers": _read_model_containers(context, uri)}}
    return {}


def _read_model_containers(context: Context, arn: str) -> list[dict[str, Any]]:
    record = context.state.get_by_arn(arn)
    if record is None or record.kind != MODEL.arn_type:
        raise ValidationError(f'Could not find model "{arn}", which is the SourceUri.')
    refuse_multi_model(record.request, "A model package")
    return [
        {name: container[name] for name in CONTAINER_MEMBERS if name in container}
        for container in list_containers(record.request)
    ]
