"""The operations on model packages.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeModelPackage.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListModelPackages.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_BatchDescribeModelPackage.html
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.listing import describe_as, list_resources
from microjobs_orchestrator.local.resources.model_registry import create, tokens, updates
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE
from microjobs_orchestrator.local.resources.model_registry.names import find_group, find_package
from microjobs_orchestrator.local.resources.operations import Handler, Operations, Request, Response
from microjobs_orchestrator.local.state import Record

VERSION_RANGES = {"Unversioned": (0, 0), "Versioned": (1, float("inf")), "Both": (0, float("inf"))}
"""The lowest and the highest version to list, by ModelPackageType. Version 0 is a package without a group."""

CARD = "ModelCard"
CARD_METADATA = (
    ("model_overview", "model_id"),
    ("model_overview", "model_name"),
    ("intended_uses", "risk_rating"),
    ("model_package_details", "model_package_group_name"),
    ("model_package_details", "model_package_arn"),
)
"""The members of a model card, as pairs of a section and a name, that IncludedData=MetadataOnly returns."""


class ModelPackageOperations(Operations):
    kind = MODEL_PACKAGE

    def add(self, request: Request) -> Record:
        return create.create(self.context, request)

    def find(self, request: Request) -> Record:
        return find_package(self.context, request["ModelPackageName"])

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {"UpdateModelPackage": self.update, "BatchDescribeModelPackage": self.batch_describe}

    def update(self, request: Request) -> Response:
        return {"ModelPackageArn": updates.update(self.context, request).arn}

    def describe(self, request: Request) -> Response:
        includes_all_data = request.get("IncludedData", "AllData") == "AllData"
        description = dict(super().describe(request))
        if CARD in description and not includes_all_data:
            description[CARD] = {**description[CARD], "ModelCardContent": _keep_card_metadata(description[CARD])}
        return description

    def list(self, request: Request) -> Response:
        """List packages. A request with a group lists the versions of the group, unless the request has another
        ModelPackageType."""
        filters: dict[str, Any] = {"status": request.get("ModelApprovalStatus", "")}
        default = "Unversioned"
        if "ModelPackageGroupName" in request:
            filters["name"] = find_group(self.context, request["ModelPackageGroupName"]).name
            default = "Versioned"
        filters["versions"] = VERSION_RANGES[request.get("ModelPackageType", default)]
        return list_resources(self.context.state, self.kind, request, **filters)

    def delete(self, request: Request) -> Response:
        state = self.context.state
        with state.transaction():
            package = self.find(request)
            tokens.forget(state, package.arn)
            state.delete(self.kind.arn_type, package.name, version=package.version)
        return {}

    def batch_describe(self, request: Request) -> Response:
        summaries, errors = {}, {}
        for arn in request["ModelPackageArnList"]:
            try:
                summaries[arn] = describe_as("BatchDescribeModelPackageSummary", find_package(self.context, arn))
            except ServiceError as error:
                errors[arn] = {"ErrorCode": error.code, "ErrorResponse": error.message}
        return {"ModelPackageSummaries": summaries, "BatchDescribeModelPackageErrorMap": errors}


def _keep_card_metadata(card: Mapping[str, Any]) -> str:
    """Return the content of a model card with only the members in `CARD_METADATA`."""
    metadata: dict[str, dict[str, Any]] = {}
    content: Any = {}
    with suppress(ValueError, RecursionError):
        content = json.loads(card.get("ModelCardContent", "{}"))
    for section, name in CARD_METADATA:
        members = content.get(section) if isinstance(content, dict) else None
        if isinstance(members, dict) and name in members:
            metadata.setdefault(section, {})[name] = members[name]
    return json.dumps(metadata)
