"""The records of scalable targets, their policies and their scaling activities in the server's state."""

import uuid
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.services.autoscaling.scalable_resources import ScalableResource, parse_resource_id
from microjobs_orchestrator.local.state import Owner, Query, Record, State

TARGET_KIND, POLICY_KIND, ACTIVITY_KIND = "scalable-target", "scaling-policy", "scaling-activity"
MAX_ACTIVITIES = 100
"""Maximum number of scaling activities that the server keeps for each target."""

Request = Mapping[str, Any]


def make_target_name(request: Request) -> str:
    """Return the name of a target's record. The request contains the target's ResourceId and ScalableDimension."""
    return f"{request['ResourceId']}|{request['ScalableDimension']}"


def find_target(state: State, request: Request) -> Record:
    """Return a target. Raise ServiceError ObjectNotFoundException if it does not exist."""
    record = state.get(TARGET_KIND, make_target_name(request))
    if record is None:
        subject, scalable_dimension = f"scalable target {request['ResourceId']}", request["ScalableDimension"]
        raise make_missing_error(subject, scalable_dimension, "DescribeScalableTargets")
    return record


def make_missing_error(subject: str, scalable_dimension: str, operation: str) -> ServiceError:
    """Return the error for a missing target or policy. `operation` lists the existing ones."""
    message = f"No {subject} is registered for scalable dimension {scalable_dimension}: see {operation}."
    return ServiceError("ObjectNotFoundException", message)


def get_scalable_resource(target: Record) -> ScalableResource:
    return parse_resource_id(target.description["ResourceId"], target.description["ScalableDimension"])


def list_targets(state: State) -> list[Record]:
    """Return all targets, oldest first."""
    return state.find(Query(TARGET_KIND, descending=False, limit=-1))


def list_policies(state: State, target_name: str | None = None) -> list[Record]:
    """Return the policies of a target, by default of all targets, oldest first."""
    owner = None if target_name is None else Owner(TARGET_KIND, target_name)
    return state.find(Query(POLICY_KIND, owner=owner, descending=False, limit=-1))


def delete_target(state: State, name: str) -> None:
    """Delete a target with its policies. Its scaling activities remain, as on AWS."""
    with state.transaction():
        for policy in list_policies(state, name):
            state.delete(POLICY_KIND, policy.name)
        state.delete(TARGET_KIND, name)


def add_activity(state: State, target: Record, count: int, cause: str, now: float) -> None:
    """Add a successful activity of a target, and delete the oldest activities if there are too many."""
    noun, owner, name = get_scalable_resource(target).capacity_noun, Owner(TARGET_KIND, target.name), str(uuid.uuid4())
    identity = {member: target.description[member] for member in ("ResourceId", "ScalableDimension")}
    description = {
        "ActivityId": name,
        "ServiceNamespace": "sagemaker",
        **identity,
        "Description": f"Setting desired {noun} to {count}.",
        "Cause": cause,
        "StartTime": now,
        "EndTime": now,
        "StatusCode": "Successful",
        "StatusMessage": f"Successfully set desired {noun} to {count}. Change successfully fulfilled by sagemaker.",
    }
    state.add(ACTIVITY_KIND, name, arn="", status="Successful", request={}, description=description, owner=owner)
    for activity in state.find(Query(ACTIVITY_KIND, owner=owner, limit=-1))[MAX_ACTIVITIES:]:
        state.delete(ACTIVITY_KIND, activity.name)
