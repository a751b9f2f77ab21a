"""UpdateModelPackage.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateModelPackage.html
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.descriptions import copy_members, describe_caller
from microjobs_orchestrator.local.resources.model_registry import tokens
from microjobs_orchestrator.local.resources.model_registry.create import ADDITIONAL, SPECIFICATION, check_additional
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE
from microjobs_orchestrator.local.resources.model_registry.model_data import fix_all, fix_data
from microjobs_orchestrator.local.resources.model_registry.names import find_package, make_conflict_error
from microjobs_orchestrator.local.resources.model_registry.sources import check_source
from microjobs_orchestrator.local.state import Record

OPERATION = "UpdateModelPackage"
APPROVAL, CARD, METADATA = "ModelApprovalStatus", "ModelCard", "CustomerMetadataProperties"
MAX_METADATA = 50


def update(context: Context, request: Mapping[str, Any]) -> Record:
    """Change a package. Raise ServiceError if the package does not exist or the change is invalid."""
    check_source(request)
    members = _make_members(context, request)  # takes time for large model data
    with context.state.transaction():
        package = find_package(context, request["ModelPackageArn"])
        if tokens.find_result(context.state, OPERATION, request) is not None:
            return package
        changes, status = _make_changes(package, request, members), request.get(APPROVAL)
        kind, version = MODEL_PACKAGE.arn_type, package.version
        changed = context.state.update(kind, package.name, changes, status, version=version)
        tokens.remember(context.state, OPERATION, request, package.arn)
    assert changed is not None  # noqa: S101  the same transaction has read the package
    return changed


def _make_members(context: Context, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the new members of the description; of the additional specifications, only the added ones."""
    added = {ADDITIONAL: request.get("AdditionalInferenceSpecificationsToAdd", [])}
    members = {
        **copy_members("DescribeModelPackage", request, without=("ModelPackageArn",)),
        **copy_members("DescribeModelPackage", added),
    }
    if SPECIFICATION in members:
        members[SPECIFICATION] = fix_data(context, members[SPECIFICATION])
    members[ADDITIONAL] = fix_all(context, members[ADDITIONAL])
    return members


def _make_changes(package: Record, request: Mapping[str, Any], members: Mapping[str, Any]) -> dict[str, Any]:
    if APPROVAL in request and not package.version:
        raise ValidationError(f"{package.arn} is in no group, so it has no {APPROVAL}: it can always be deployed.")
    changes = {**members, **_change_metadata(package, request), "LastModifiedBy": describe_caller()}
    additional = [*package.description.get(ADDITIONAL, []), *members[ADDITIONAL]]
    check_additional(additional)
    changes[ADDITIONAL] = additional
    if not additional:
        del changes[ADDITIONAL]
    if CARD in request:
        changes[CARD] = _change_card(package.description.get(CARD, {}), request[CARD])
    return changes


def _change_card(card: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    if card.get("ModelCardStatus") == "Archived" and "ModelCardContent" in change:
        raise make_conflict_error("Model Card is in Archived state: its content cannot be changed.")
    return {**card, **change}


def _change_metadata(package: Record, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changed metadata properties; nothing if the request does not change them."""
    removed = request.get("CustomerMetadataPropertiesToRemove", [])
    if METADATA not in request and not removed:
        return {}
    properties = {**package.description.get(METADATA, {}), **request.get(METADATA, {})}
    kept = {name: value for name, value in properties.items() if name not in removed}
    if len(kept) > MAX_METADATA:
        raise ValidationError(f"A package can have {MAX_METADATA} {METADATA}, and it would have {len(kept)}.")
    return {METADATA: kept}
