"""UpdateModelPackage.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateModelPackage.html
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.descriptions import describe_caller, select_response_members
from microjobs_orchestrator.local.resources.model_registry import tokens
from microjobs_orchestrator.local.resources.model_registry.create import (
    ADDITIONAL_SPECIFICATIONS,
    SPECIFICATION,
    check_additional_specifications,
)
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE
from microjobs_orchestrator.local.resources.model_registry.model_data import add_etags
from microjobs_orchestrator.local.resources.model_registry.names import find_package, make_conflict_error
from microjobs_orchestrator.local.resources.model_registry.sources import check_source
from microjobs_orchestrator.local.state import Record

OPERATION = "UpdateModelPackage"
APPROVAL, CARD, METADATA = "ModelApprovalStatus", "ModelCard", "CustomerMetadataProperties"
MAX_METADATA_PROPERTIES = 50


def update(context: Context, request: Mapping[str, Any]) -> Record:
    """Change a package. Raise ServiceError if the package does not exist or the change is invalid."""
    check_source(request)
    members = _make_members(context, request)  # this call takes time if the model data is large
    with context.state.transaction():
        package = find_package(context, request["ModelPackageArn"])
        if tokens.find_package_arn(context.state, OPERATION, request) is not None:
            return package
        changes, status = _make_changes(package, request, members), request.get(APPROVAL)
        kind, version = MODEL_PACKAGE.arn_type, package.version
        changed_package = context.state.update(kind, package.name, changes, status, version=version)
        tokens.remember(context.state, OPERATION, request, package.arn)
    assert changed_package is not None  # noqa: S101  the same transaction has read the package
    return changed_package


def _make_members(context: Context, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the new members of the description. They contain the additional specifications that the request adds, but
    not the earlier ones."""
    added_specifications = {ADDITIONAL_SPECIFICATIONS: request.get("AdditionalInferenceSpecificationsToAdd", [])}
    members = {
        **select_response_members("DescribeModelPackage", request, excluded_members=("ModelPackageArn",)),
        **select_response_members("DescribeModelPackage", added_specifications),
    }
    if SPECIFICATION in members:
        members[SPECIFICATION] = add_etags(context, members[SPECIFICATION])
    members[ADDITIONAL_SPECIFICATIONS] = [add_etags(context, item) for item in members[ADDITIONAL_SPECIFICATIONS]]
    return members


def _make_changes(package: Record, request: Mapping[str, Any], members: Mapping[str, Any]) -> dict[str, Any]:
    if APPROVAL in request and not package.version:
        raise ValidationError(f"{package.arn} is in no group, so it has no {APPROVAL}: it can always be deployed.")
    changes = {**members, **_change_metadata(package, request), "LastModifiedBy": describe_caller()}
    specifications = [*package.description.get(ADDITIONAL_SPECIFICATIONS, []), *members[ADDITIONAL_SPECIFICATIONS]]
    check_additional_specifications(specifications)
    changes[ADDITIONAL_SPECIFICATIONS] = specifications
    if not specifications:
        del changes[ADDITIONAL_SPECIFICATIONS]
    if CARD in request:
        changes[CARD] = _change_card(package.description.get(CARD, {}), request[CARD])
    return changes


def _change_card(card: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    if card.get("ModelCardStatus") == "Archived" and "ModelCardContent" in change:
        raise make_conflict_error("Model Card is in Archived state: its content cannot be changed.")
    return {**card, **change}


def _change_metadata(package: Record, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the member with the changed metadata properties, or no member if the request does not change them."""
    removed_names = request.get("CustomerMetadataPropertiesToRemove", [])
    if METADATA not in request and not removed_names:
        return {}
    properties = {**package.description.get(METADATA, {}), **request.get(METADATA, {})}
    new_properties = {name: value for name, value in properties.items() if name not in removed_names}
    if len(new_properties) > MAX_METADATA_PROPERTIES:
        raise ValidationError(
            f"A package can have at most {MAX_METADATA_PROPERTIES} {METADATA}, and it would have {len(new_properties)}."
        )
    return {METADATA: new_properties}
