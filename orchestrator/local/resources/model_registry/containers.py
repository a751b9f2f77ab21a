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
    """Return the containers of the package that a ContainerDefinition names, each with the variables of both.

    Raise ValidationError if the package does not exist, is a version that is not approved, or has no specification with
    the requested name.
    """
    if conflicting := [name for name in EXCLUSIVE_MEMBERS if name in container]:
        raise ValidationError(f"ModelPackageName cannot be combined with {', '.join(conflicting)}: remove one of them.")
    package = find_package(context, container["ModelPackageName"])
    _check_approval(package)
    containers = _find_specification(package, container.get("InferenceSpecificationName"))["Containers"]
    variables = container.get("Environment", {})
    merged = [{**packaged, "Environment": {**packaged.get("Environment", {}), **variables}} for packaged in containers]
    if len(merged) == 1 and "ContainerHostname" in container:
        merged[0]["ContainerHostname"] = container["ContainerHostname"]
    return merged


def _check_approval(package: Record) -> None:
    if package.version and package.status != "Approved":
        raise ValidationError(
            f"{package.arn} cannot be deployed, because its ModelApprovalStatus is {package.status}: approve it with "
            "UpdateModelPackage."
        )


def _find_specification(package: Record, name: str | None) -> Specification:
    description = package.description
    named: dict[str | None, Specification] = {
        item["Name"]: item for item in description.get("AdditionalInferenceSpecifications", [])
    }
    if "InferenceSpecification" in description:
        named[None] = description["InferenceSpecification"]
    if name not in named:
        known = ", ".join(filter(None, named)) or "none"
        noun = f"inference specification {name!r}" if name else "InferenceSpecification"
        raise ValidationError(f"{package.arn} has no {noun}; its additional specifications: {known}.")
    return named[name]
