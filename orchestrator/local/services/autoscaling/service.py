"""The operations of Application Auto Scaling.

https://docs.aws.amazon.com/autoscaling/application/APIReference/Welcome.html
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.protocols.results import Service
from microjobs_orchestrator.local.services.autoscaling import records
from microjobs_orchestrator.local.services.autoscaling.policies import PredefinedMetric, TargetTracking
from microjobs_orchestrator.local.services.autoscaling.records import ACTIVITY_KIND, POLICY_KIND, TARGET_KIND
from microjobs_orchestrator.local.services.autoscaling.scalable_resources import parse_resource_id
from microjobs_orchestrator.local.state import Owner, Query, Record

ROLE = (
    f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
)
NO_SUSPENSION = dict.fromkeys(
    ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended"), False
)
PREDEFINED_MEMBER, CUSTOMIZED_MEMBER = "PredefinedMetricSpecification", "CustomizedMetricSpecification"
CONFIG_MEMBER = "TargetTrackingScalingPolicyConfiguration"

Request = Mapping[str, Any]
Response = Mapping[str, Any]


class ApplicationAutoScaling:
    """The service Application Auto Scaling.

    Args:
        on_registration: called after each registration of a target.
    """

    def __init__(self, context: Context, on_registration: Callable[[], None]) -> None:
        self._state = context.state
        self._region = context.settings.region
        self._on_registration = on_registration

    def list_handlers(self) -> Service:
        return {
            "RegisterScalableTarget": self.register_target,
            "DescribeScalableTargets": self.describe_targets,
            "DeregisterScalableTarget": self.deregister_target,
            "PutScalingPolicy": self.put_policy,
            "DescribeScalingPolicies": self.describe_policies,
            "DeleteScalingPolicy": self.delete_policy,
            "DescribeScalingActivities": self.describe_activities,
        }

    def register_target(self, request: Request) -> Response:
        """Add a target. If the target exists, change those of its members that the request contains."""
        resource = parse_resource_id(request["ResourceId"], request["ScalableDimension"])
        if resource.read(self._state) is None:
            message = f"{request['ResourceId']} does not exist, or has no {resource.capacity_noun}: create it first."
            raise _make_error(message)
        name = records.make_target_name(request)
        record = self._state.get(TARGET_KIND, name)
        target = _make_target(request, record)
        if record is None:
            path = f"{self._region}:{ACCOUNT}:scalable-target/{uuid.uuid4().hex}"
            arn = f"arn:aws:application-autoscaling:{path}"
            record = self._state.add(
                TARGET_KIND, name, arn, status="", request=request, description={**target, "ScalableTargetARN": arn}
            )
        else:
            self._state.update(TARGET_KIND, name, target)
        self._on_registration()
        return {"ScalableTargetARN": record.arn}

    def describe_targets(self, request: Request) -> Response:
        ids = request.get("ResourceIds")
        targets = [
            {**record.description, "CreationTime": record.created}
            for record in records.list_targets(self._state)
            if not ids or record.description["ResourceId"] in ids
        ]
        return _make_page(targets, request, "ScalableTargets")

    def deregister_target(self, request: Request) -> Response:
        records.delete_target(self._state, records.find_target(self._state, request).name)
        return {}

    def put_policy(self, request: Request) -> Response:
        """Add a target tracking policy, or replace the policy with this name."""
        target = records.find_target(self._state, request)
        _check_policy(request)
        name = f"{target.name}|{request['PolicyName']}"
        members = ("PolicyName", "ServiceNamespace", "ResourceId", "ScalableDimension", CONFIG_MEMBER)
        policy_members = {member: request[member] for member in members}
        record = self._state.update(POLICY_KIND, name, policy_members)
        if record is None:
            resource = f"{uuid.uuid4()}:resource/sagemaker/{request['ResourceId']}:policyName/{request['PolicyName']}"
            arn = f"arn:aws:autoscaling:{self._region}:{ACCOUNT}:scalingPolicy:{resource}"
            description = {**policy_members, "PolicyType": "TargetTrackingScaling", "PolicyARN": arn, "Alarms": []}
            owner = Owner(TARGET_KIND, target.name)
            record = self._state.add(
                POLICY_KIND, name, arn, status="", request=request, description=description, owner=owner
            )
        return {"PolicyARN": record.arn, "Alarms": []}

    def describe_policies(self, request: Request) -> Response:
        names = request.get("PolicyNames")
        policies = [
            {**record.description, "CreationTime": record.created}
            for record in records.list_policies(self._state)
            if not names or record.description["PolicyName"] in names or record.arn in names
        ]
        return _make_page(policies, request, "ScalingPolicies")

    def delete_policy(self, request: Request) -> Response:
        if not self._state.delete(POLICY_KIND, f"{records.make_target_name(request)}|{request['PolicyName']}"):
            subject = f"scaling policy {request['PolicyName']} of {request['ResourceId']}"
            raise records.make_missing_error(subject, request["ScalableDimension"], "DescribeScalingPolicies")
        return {}

    def describe_activities(self, request: Request) -> Response:
        activities = [record.description for record in self._state.find(Query(ACTIVITY_KIND, limit=-1))]
        return _make_page(activities, request, "ScalingActivities")


def _make_target(request: Request, old_record: Record | None) -> Mapping[str, Any]:
    """Return the description of a target. Raise ServiceError ValidationException for wrong limits."""
    defaults = {"RoleARN": ROLE, "SuspendedState": NO_SUSPENSION} if old_record is None else old_record.description
    members = ("ServiceNamespace", "ResourceId", "ScalableDimension", "MinCapacity", "MaxCapacity", "RoleARN")
    target = {**defaults, **{member: request[member] for member in members if member in request}}
    suspensions = request.get("SuspendedState", {})
    changes = {name: suspensions[name] for name in NO_SUSPENSION if name in suspensions}
    target["SuspendedState"] = {**target["SuspendedState"], **changes}
    if not {"MinCapacity", "MaxCapacity"} <= target.keys():
        raise _make_error("MinCapacity and MaxCapacity are required to register a new scalable target.")
    if not 0 <= target["MinCapacity"] <= target["MaxCapacity"]:
        minimum, maximum = target["MinCapacity"], target["MaxCapacity"]
        raise _make_error(f"MinCapacity {minimum} must not be negative or larger than MaxCapacity {maximum}.")
    return target


def _check_policy(request: Request) -> None:
    """Raise ServiceError ValidationException for a policy without a valid target value, or whose metric is missing or
    does not fit its scalable target."""
    config = request.get(CONFIG_MEMBER)
    if config is None:
        raise _make_error(f"PutScalingPolicy needs a {CONFIG_MEMBER}.")
    if (PREDEFINED_MEMBER in config) == (CUSTOMIZED_MEMBER in config):
        raise _make_error(f"{CONFIG_MEMBER} must have exactly one of {PREDEFINED_MEMBER} and {CUSTOMIZED_MEMBER}.")
    if config["TargetValue"] <= 0:
        raise _make_error(f"TargetValue {config['TargetValue']:g} must be greater than 0.")
    metric, scalable_dimension = (
        TargetTracking(request["PolicyName"], config, speed=1).metric,
        request["ScalableDimension"],
    )
    if isinstance(metric, PredefinedMetric) and metric.scalable_dimension != scalable_dimension:
        raise _make_error(f"The PredefinedMetricType does not fit the scalable dimension {scalable_dimension}.")


def _make_page(items: Sequence[Mapping[str, Any]], request: Request, member: str) -> Response:
    """Return the requested page of the items. If the request names a resource or a scalable dimension, skip items of
    other resources or dimensions."""
    filters = {name: request[name] for name in ("ResourceId", "ScalableDimension") if name in request}
    selected_items = [item for item in items if all(item[name] == value for name, value in filters.items())]
    page, token = cut_page(selected_items, request, default_limit=50, code="InvalidNextTokenException")
    return {member: page, **token}


def _make_error(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)
