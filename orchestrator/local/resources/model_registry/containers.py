"""The containers of a model that is created from a package.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-deploy.html
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.model_registry.model_data import Specification
from microjobs_orchestrator.local.resources.model_registry.names import find_package
from microjobs_orchestrator.local.state import Record

EXCLUSIVE_MEMBERS = ("Image", "ModelDataUrl", "ModelDataSource")
"""Members of a container that a package replaces."""


def find_containers(context: Context, container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of the package that a ContainerDefinition names. Each container has the variables of the
    package and of the definition.

    Raise ValidationError if the definition also has a member of EXCLUSIVE_MEMBERS, or if the package does not exist, is
    a version that is not approved, or has no specification with the requested name.
    """
    if conflicting := [name for name in EXCLUSIVE_MEMBERS if name in container]:
        raise ValidationError(f"ModelPackageName cannot be combined with {', '.join(conflicting)}: remove one of them.")
    package = find_package(context, container["ModelPackageName"])
    _check_approval(package)
    containers = _find_specification(package, container.get("InferenceSpecificationName"))["Containers"]
    variables = container.get("Environment", {})
    merged_containers = [{**item, "Environment": {**item.get("Environment", {}), **variables}} for item in containers]
    if len(merged_containers) == 1 and "ContainerHostname" in container:
        merged_containers[0]["ContainerHostname"] = container["ContainerHostname"]
    return merged_containers


def _check_approval(package: Record) -> None:
    if package.version and package.status != "Approved":
        raise ValidationError(
            f"{package.arn} cannot be deployed, because its ModelApprovalStatus is {package.status}: approve it with "
            "UpdateModelPackage."
        )


def _find_specification(package: Record, name: str | None) -> Specification:
    """Return the additional specification with a name, or the package's InferenceSpecification if the name is None."""
    description = package.description
    specifications: dict[str | None, Specification] = {
        item["Name"]: item for item in description.get("AdditionalInferenceSpecifications", [])
    }
    if "InferenceSpecification" in description:
        specifications[None] = description["InferenceSpecification"]
    if name not in specifications:
        names = ", ".join(filter(None, specifications)) or "none"
        noun = f"inference specification {name!r}" if name else "InferenceSpecification"
        raise ValidationError(f"{package.arn} has no {noun}; its additional specifications: {names}.")
    return specifications[name]
