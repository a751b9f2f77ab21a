"""Specifications of inference components: the model that each copy serves, and the resources of a copy.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_InferenceComponentSpecification.html
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints.deployments import Deployment
from microjobs_orchestrator.local.resources.models import serving
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.model_data import find_data
from microjobs_orchestrator.local.resources.models.multi_model import refuse_multi_model
from microjobs_orchestrator.local.resources.operations import find_resource
from microjobs_orchestrator.local.runtimes.base import HostLimits

MIB = 1 << 20
BASE_COMPONENT = "BaseInferenceComponentName"
"""The member of a specification that names the component whose copies load the adapter."""

Specification = Mapping[str, Any]


def find_model(context: Context, specification: Specification, *, is_isolated: bool) -> Mapping[str, Any]:
    """Return the CreateModel request for a specification: the request of its model, or a request with its container.
    The container of an adapter has only model data.

    Raise ValidationError unless the specification has either a model or a container, but not both. Also raise
    ValidationError if the model or its data does not exist.
    """
    if BASE_COMPONENT in specification:
        return _make_adapter_request(context, specification)
    if ("ModelName" in specification) == ("Container" in specification):
        raise ValidationError("Specification must have exactly one of ModelName and Container.")
    if "ModelName" in specification:
        model = find_resource(context, MODEL, specification["ModelName"]).request
        refuse_multi_model(model, "An inference component")
        return model
    members = specification["Container"]
    if "Image" not in members:
        raise ValidationError("Specification.Container must have an Image.")
    container = {"Image": members["Image"], "Environment": members.get("Environment", {})}
    if "ArtifactUrl" in members:
        container["ModelDataUrl"] = members["ArtifactUrl"]
    find_data(context.store, container)
    return {"PrimaryContainer": container, "EnableNetworkIsolation": is_isolated}


def _make_adapter_request(context: Context, specification: Specification) -> Mapping[str, Any]:
    """Return a request with the container of an adapter, which has only model data."""
    container = specification.get("Container", {})
    if "ArtifactUrl" not in container or "Image" in container or "ModelName" in specification:
        raise ValidationError(
            f"With {BASE_COMPONENT}, Specification.Container must have only an ArtifactUrl: the adapter."
        )
    adapter = {"ModelDataUrl": container["ArtifactUrl"]}
    find_data(context.store, adapter)
    return {"PrimaryContainer": adapter}


def make_copy_ids(count: int, earlier_ids: Sequence[str] = ()) -> list[str]:
    """Return the ids of a component's copies: first the ids of copies that keep running, as many as `count` allows,
    then new ids.

    Args:
        earlier_ids: the ids of the copies of an earlier deployment.
    """
    return [*earlier_ids[:count], *(f"i-{secrets.token_hex(8)}" for _ in range(count - len(earlier_ids)))]


def read_limits(specification: Specification) -> HostLimits | None:
    """Return the limits of one copy; None if the specification limits neither processors nor memory."""
    requirements = specification.get("ComputeResourceRequirements", {})
    memory, cpus = requirements.get("MaxMemoryRequiredInMb"), requirements.get("NumberOfCpuCoresRequired")
    if memory is None and cpus is None:
        return None
    return HostLimits(inf if cpus is None else cpus, None if memory is None else memory * MIB)


def read_timeout(specification: Specification) -> float:
    """Return the seconds until `/ping` must answer."""
    parameters = specification.get("StartupParameters", {})
    return float(parameters.get("ContainerStartupHealthCheckTimeoutInSeconds", serving.STARTUP_TIMEOUT))


def check(specification: Specification) -> None:
    """Raise ValidationError for contradictory requirements."""
    requirements = specification.get("ComputeResourceRequirements", {})
    minimum, maximum = requirements.get("MinMemoryRequiredInMb"), requirements.get("MaxMemoryRequiredInMb")
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ValidationError(f"MinMemoryRequiredInMb {minimum} is more than MaxMemoryRequiredInMb {maximum}.")


def describe(deployment: Deployment, *, serving_count: int) -> dict[str, Any]:
    """Return the members of DescribeInferenceComponent for a deployment with `serving_count` copies in service."""
    specification = dict(deployment["Specification"])
    if "Container" in specification:
        container = dict(specification["Container"])
        if (image := container.pop("Image", None)) is not None:
            times = {"ResolutionTime": time.time()}
            container["DeployedImage"] = {"SpecifiedImage": image, "ResolvedImage": image, **times}
        specification["Container"] = container
    counts = {"DesiredCopyCount": len(deployment["Copies"]), "CurrentCopyCount": serving_count}
    return {"Specification": specification, "RuntimeConfig": counts}
