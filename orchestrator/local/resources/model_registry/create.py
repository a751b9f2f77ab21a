"""CreateModelPackage: checks of the request, and the description of a new package.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html
"""

from collections.abc import Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.descriptions import describe_caller, select_response_members
from microjobs_orchestrator.local.resources.model_registry import tokens
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE, MODEL_PACKAGE_GROUP
from microjobs_orchestrator.local.resources.model_registry.model_data import Specification, add_etags
from microjobs_orchestrator.local.resources.model_registry.names import find_group, find_package
from microjobs_orchestrator.local.resources.model_registry.sources import read_source
from microjobs_orchestrator.local.state import NameTakenError, Record

OPERATION = "CreateModelPackage"
LAST_VERSION = "LastVersion"
"""Key of a group's internal state. Its value is the number of the newest version. Numbers of deleted versions are not
used again."""
SPECIFICATION, ADDITIONAL_SPECIFICATIONS = "InferenceSpecification", "AdditionalInferenceSpecifications"
MAX_ADDITIONAL_SPECIFICATIONS = 15
INSTANCE_TYPE_MEMBERS = ("SupportedTransformInstanceTypes", "SupportedRealtimeInferenceInstanceTypes")


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Check a CreateModelPackage request, and register the package.

    Return the record of an earlier package if a request with the same ClientToken created it.

    Raises:
        ValidationError: the request is invalid, the group or the model data does not exist, or the name is in use.
        ServiceError: an earlier request with the same ClientToken had other members.
    """
    if (earlier_package := _find_earlier_package(context, request)) is not None:
        return earlier_package
    members = make_checked_members(context, request)
    with context.state.transaction():
        # A concurrent request with the same ClientToken may have registered the package during `make_checked_members`.
        if (earlier_package := _find_earlier_package(context, request)) is not None:
            return earlier_package
        record = add(context, request, members)
        tokens.remember(context.state, OPERATION, request, record.arn)
    return record


def make_checked_members(context: Context, request: Mapping[str, Any]) -> dict[str, Any]:
    """Check a request, and return the members of the description that it determines.

    Call this function before the transaction that calls `add`: it reads the model data, which takes time if the data is
    large. Raise ValidationError if the request is invalid.
    """
    _check_names(request)
    return _make_members(context, request)


def add(context: Context, request: Mapping[str, Any], members: Mapping[str, Any]) -> Record:
    """Add a package, as a part of the caller's transaction.

    Args:
        members: the result of `make_checked_members`.
    """
    add_package = _add_version if "ModelPackageGroupName" in request else _add_unversioned_package
    return add_package(context, request, members)


def _find_earlier_package(context: Context, request: Mapping[str, Any]) -> Record | None:
    arn = tokens.find_package_arn(context.state, OPERATION, request)
    return None if arn is None else find_package(context, arn)


# --- checks ---


def _check_names(request: Mapping[str, Any]) -> None:
    names = [name for name in ("ModelPackageName", "ModelPackageGroupName") if name in request]
    if len(names) != 1:
        raise ValidationError(
            f"The request has {' and '.join(names) or 'no name'}: set ModelPackageGroupName for a new version in a "
            "group, or ModelPackageName for a package without a group."
        )
    if names == ["ModelPackageName"]:
        _check_unversioned_package(request)
    elif request.get("Tags"):
        raise ValidationError("Tags cannot be set for a version in a group: set the tags of the group.")


def _check_unversioned_package(request: Mapping[str, Any]) -> None:
    specification = request.get(SPECIFICATION)
    if specification is None:
        raise ValidationError("A package without a group needs an InferenceSpecification.")
    if missing := [name for name in INSTANCE_TYPE_MEMBERS if not specification.get(name)]:
        raise ValidationError(f"A package without a group needs {' and '.join(missing)} in InferenceSpecification.")
    if any(container.get("Environment") for container in specification["Containers"]):
        raise ValidationError(
            "Environment cannot be set for a package without a group: set it in CreateModel, or set "
            "ModelPackageGroupName instead of ModelPackageName."
        )


def check_additional_specifications(specifications: Sequence[Specification]) -> None:
    """Raise ValidationError if there are too many additional specifications, or two with the same name."""
    inputs.check_unique(
        f"Names of {ADDITIONAL_SPECIFICATIONS}", [specification["Name"] for specification in specifications]
    )
    if len(specifications) > MAX_ADDITIONAL_SPECIFICATIONS:
        raise ValidationError(
            f"A package can have at most {MAX_ADDITIONAL_SPECIFICATIONS} {ADDITIONAL_SPECIFICATIONS}, and it would "
            f"have {len(specifications)}."
        )


# --- the description ---


def _make_members(context: Context, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of the description that the request determines."""
    members = select_response_members("DescribeModelPackage", request)
    members |= read_source(context, request)
    if SPECIFICATION in members:
        members[SPECIFICATION] = add_etags(context, members[SPECIFICATION])
    if ADDITIONAL_SPECIFICATIONS in members:
        check_additional_specifications(members[ADDITIONAL_SPECIFICATIONS])
        members[ADDITIONAL_SPECIFICATIONS] = [add_etags(context, item) for item in members[ADDITIONAL_SPECIFICATIONS]]
    caller = describe_caller()
    return {
        "CertifyForMarketplace": False,
        **members,
        "ModelPackageStatus": "Completed",
        "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
        "CreatedBy": caller,
        "LastModifiedBy": caller,
    }


def _add_version(context: Context, request: Mapping[str, Any], members: Mapping[str, Any]) -> Record:
    group = find_group(context, request["ModelPackageGroupName"])
    version = group.internal.get(LAST_VERSION, 0) + 1
    approval = request.get("ModelApprovalStatus", "PendingManualApproval")
    names = {"ModelPackageGroupName": group.name, "ModelPackageVersion": version, "ModelApprovalStatus": approval}
    context.state.update(MODEL_PACKAGE_GROUP.arn_type, group.name, {}, internal={LAST_VERSION: version})
    path, description = f"{group.name}/{version}", {**members, **names}
    return _add(context, path, approval, request, description, name=group.name, version=version)


def _add_unversioned_package(context: Context, request: Mapping[str, Any], members: Mapping[str, Any]) -> Record:
    name = request["ModelPackageName"]
    unversioned_members = {member: value for member, value in members.items() if member != "ModelApprovalStatus"}
    return _add(context, name, "", request, unversioned_members, name=name, version=0)


def _add(
    context: Context,
    path: str,
    status: str,
    request: Mapping[str, Any],
    members: Mapping[str, Any],
    *,
    name: str,
    version: int,
) -> Record:
    """Add a package to the state.

    Args:
        path: the end of the ARN, after the kind.
        name: the name of the group, or of a package without a group.
        version: the number in the group, or 0.
    """
    arn, kind = format_arn(f"{MODEL_PACKAGE.arn_type}/{path}", context.settings.region), MODEL_PACKAGE.arn_type
    description, tags = {**members, "ModelPackageArn": arn}, request.get("Tags", [])
    try:
        return context.state.add(kind, name, arn, status, request, description, tags=tags, version=version)
    except NameTakenError as error:  # the SageMaker SDK searches for "ModelPackage already exists"
        raise ValidationError(f"ModelPackage already exists: {arn}. Delete it, or choose another name.") from error
