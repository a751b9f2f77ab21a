"""Events about changes of a resource's status, as AWS sends them to EventBridge.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.state import Record

SECONDARY_STATUS = "SecondaryStatus"


@dataclass(frozen=True)
class ResourceEvent:
    """The part of an event that depends on the resource."""

    detail_type: str
    arns: Sequence[str]
    detail: Mapping[str, Any]


def is_state_change(kind: Kind, before: Record | None, after: Record | None) -> bool:
    """Return whether a change of a resource causes an event.

    For kinds with a lifecycle, new resources and changes of the status or the secondary status cause events. For other
    kinds, new and deleted resources and all changes of the description cause events.
    """
    if kind.lifecycle is None:
        return before is None or after is None or before.description != after.description
    if before is None or after is None:
        return before is None
    members = (kind.status_member, SECONDARY_STATUS)
    return before.status != after.status or any(
        before.description.get(name) != after.description.get(name) for name in members
    )


def make_detail(
    kind: Kind,
    before: Record | None,
    after: Record | None,
    describe_response: Mapping[str, Any],
    tags: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Return the `detail` of an event.

    If a resource runs until it is deleted, such as an endpoint, its status is in capitals, as on AWS: InService becomes
    IN_SERVICE.

    Args:
        describe_response: the response of the kind's Describe operation.
    """
    shape = load_operation_model("sagemaker", f"Describe{kind.noun}").output_shape
    detail = dict(convert_times(shape, describe_response)) if shape else {}
    if kind.lifecycle and kind.lifecycle.runs_until_deleted and kind.status_member in detail:
        detail[kind.status_member] = re.sub("(?<=[a-z])(?=[A-Z])", "_", detail[kind.status_member]).upper()
    if kind.lifecycle is None and before is not None and after is not None:
        detail[f"Updated{kind.noun}Fields"] = list_changed_members(before.description, after.description)
    return {**detail, "Tags": {tag["Key"]: tag["Value"] for tag in tags}}


def list_changed_members(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names of the members that were added, changed or removed."""
    names = {**before, **after}
    return sorted(name for name in names if before.get(name) != after.get(name))


def convert_times(shape: Shape, value: Any) -> Any:
    """Return a value in which times are in milliseconds since 1970, as in AWS's events."""
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        known_members = {name: member for name, member in shape.members.items() if name in value}
        return {name: convert_times(member, value[name]) for name, member in known_members.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [convert_times(shape.member, item) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, Mapping):
        return {name: convert_times(shape.value, item) for name, item in value.items()}
    return round(value * 1000) if shape.type_name == "timestamp" else value
