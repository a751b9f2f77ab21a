"""The operations on model package groups, and their resource policies.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackageGroup.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_PutModelPackageGroupPolicy.html
"""

import json
from collections.abc import Mapping

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.descriptions import describe_caller, select_response_members
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE, MODEL_PACKAGE_GROUP
from microjobs_orchestrator.local.resources.model_registry.names import find_group, make_conflict_error
from microjobs_orchestrator.local.resources.operations import Handler, Operations, Request, Response
from microjobs_orchestrator.local.state import NameTakenError, Query, Record

POLICY = "ResourcePolicy"
"""The member of requests and responses, and the key of a group's internal state. The value in the internal state is
empty after the policy was deleted."""


def create_group(context: Context, request: Request) -> Record:
    """Add a group. Raise ValidationError if it exists: clients search the message for "already exists"."""
    name = request["ModelPackageGroupName"]
    arn = format_arn(f"{MODEL_PACKAGE_GROUP.arn_type}/{name}", context.settings.region)
    members = select_response_members("DescribeModelPackageGroup", request)
    server_members = {
        "ModelPackageGroupStatus": "Completed",
        "CreatedBy": describe_caller(),
        "ModelPackageGroupArn": arn,
    }
    kind, tags = MODEL_PACKAGE_GROUP.arn_type, request.get("Tags", [])
    try:
        return context.state.add(kind, name, arn, "", request, {**members, **server_members}, tags=tags)
    except NameTakenError as error:
        raise ValidationError(f"Model Package Group already exists: {arn}.") from error


class ModelPackageGroupOperations(Operations):
    kind = MODEL_PACKAGE_GROUP

    def add(self, request: Request) -> Record:
        return create_group(self.context, request)

    def find(self, request: Request) -> Record:
        return find_group(self.context, request["ModelPackageGroupName"])

    def delete(self, request: Request) -> Response:
        state = self.context.state
        with state.transaction():
            group = self.find(request)
            if state.find(Query(MODEL_PACKAGE.arn_type, name=group.name, versions=(1, float("inf")), limit=1)):
                raise make_conflict_error(
                    f"Model Package Group {group.arn} cannot be deleted, because it contains model packages: delete "
                    "them first."
                )
            state.delete(self.kind.arn_type, group.name)
        return {}

    # --- policies ---

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {
            "PutModelPackageGroupPolicy": self.put_policy,
            "GetModelPackageGroupPolicy": self.get_policy,
            "DeleteModelPackageGroupPolicy": self.delete_policy,
        }

    def put_policy(self, request: Request) -> Response:
        group, policy = self._find_group_for_policy(request), request[POLICY]
        try:
            json.loads(policy)
        except (ValueError, RecursionError) as error:
            raise ValidationError(f"{POLICY} is not a JSON document: {error}.") from error
        self._set_policy(group, policy)
        return {"ModelPackageGroupArn": group.arn}

    def get_policy(self, request: Request) -> Response:
        return {POLICY: self._find_policy(self._find_group_for_policy(request))}

    def delete_policy(self, request: Request) -> Response:
        group = self._find_group_for_policy(request)
        self._find_policy(group)
        self._set_policy(group, "")
        return {}

    def _set_policy(self, group: Record, policy: str) -> None:
        self.context.state.update(self.kind.arn_type, group.name, {}, internal={POLICY: policy})

    def _find_group_for_policy(self, request: Request) -> Record:
        """Return the group whose policy a request reads or changes. Terraform searches the error message for
        "Cannot find Model Package Group"."""
        name = request["ModelPackageGroupName"]
        group = self.context.state.get(self.kind.arn_type, name)
        if group is None:
            arn = format_arn(f"{self.kind.arn_type}/{name}", self.context.settings.region)
            raise ValidationError(f"Cannot find Model Package Group: {arn}.")
        return group

    def _find_policy(self, group: Record) -> str:
        if not (policy := group.internal.get(POLICY)):
            raise ValidationError(f"Cannot find resource policy for: {group.arn}.")
        return str(policy)
