"""Target tracking: policies that change the number of copies or instances, and requests that are refused."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.operation_calls import OperationCaller
from microjobs_orchestrator.local.services.autoscaling import records
from microjobs_orchestrator.local.services.autoscaling.scaler import Scaler
from microjobs_orchestrator.local.services.autoscaling.service import CONFIG_MEMBER, ApplicationAutoScaling
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour
from tests.local.jobs.test_inference_components import Components
from tests.polling import wait_until

COMPONENT = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "inference-component/one",
    "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
}
VARIANT = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/main",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
PER_COPY_METRIC = {"PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"}
CONCURRENCY_METRIC = {"PredefinedMetricType": "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"}
CUSTOM_METRIC = {
    "Namespace": "mine",
    "MetricName": "Waiting",
    "Dimensions": [{"Name": "Queue", "Value": "q"}],
    "Statistic": "Maximum",
}
MINUTE = 60.0
START = time.time() // MINUTE * MINUTE + 3600.0
"""The time of the first evaluation. The tests create all policies before this time."""


class Scaling:
    """Application Auto Scaling. Tests choose the times of its evaluations."""

    def __init__(self, parts: ServerParts) -> None:
        self.parts = parts
        self.service = ApplicationAutoScaling(parts.context, on_registration=lambda: None)
        self.scaler = Scaler(parts.context, OperationCaller(parts.context, parts.registry).call)

    def register(self, resource: Mapping[str, Any], minimum: int = 1, maximum: int = 4, **members: Any) -> None:
        self.service.register_target({**resource, "MinCapacity": minimum, "MaxCapacity": maximum, **members})

    def put_policy(self, resource: Mapping[str, Any], target_value: float, name: str = "p", **members: Any) -> None:
        metric = (
            {} if "CustomizedMetricSpecification" in members else {"PredefinedMetricSpecification": PER_COPY_METRIC}
        )
        config = {"TargetValue": target_value, **metric, **members}
        self.service.put_policy({**resource, "PolicyName": name, CONFIG_MEMBER: config})

    def record_invocations(self, per_minute: float, minutes: int, end: float = START) -> None:
        """Record `per_minute` invocations of the component in each of the last `minutes` minutes before `end`."""
        for minute in range(1, minutes + 1):
            self.parts.context.metrics.record(
                "AWS/SageMaker", {"InferenceComponentName": "one"}, {"Invocations": per_minute}, end - minute * MINUTE
            )

    def evaluate(self, now: float = START) -> None:
        for target in records.list_targets(self.parts.context.state):
            self.scaler._evaluate(target, now)

    def list_activities(self) -> list[Mapping[str, Any]]:
        activities: list[Mapping[str, Any]] = self.service.describe_activities(COMPONENT)["ScalingActivities"]
        return activities


@pytest.fixture
def scaling(parts: ServerParts, model: ImageBehaviour) -> Scaling:  # noqa: ARG001  the fixture creates model `m`
    """Application Auto Scaling of a server with component `one`, which has one copy on endpoint `e`."""
    components = Components(parts)
    components.start_endpoint()
    components.start("one")
    return Scaling(parts)


@pytest.fixture
def count_copies(scaling: Scaling) -> Callable[[], int]:
    """A function that returns the current number of copies of component `one`."""
    components = Components(scaling.parts)

    def count() -> int:
        return int(components.wait("one")["RuntimeConfig"]["CurrentCopyCount"])

    return count


def test_load_above_the_target_adds_enough_copies(scaling: Scaling, count_copies: Callable[[], int]) -> None:
    scaling.register(COMPONENT)
    scaling.put_policy(COMPONENT, target_value=100.0)
    scaling.record_invocations(250.0, minutes=3)
    scaling.evaluate()
    assert count_copies() == 3
    (activity,) = scaling.list_activities()
    assert activity["Description"] == "Setting desired copy count to 3."
    assert "above the target for 3 periods, and 250 in the last one; the target of policy p is 100" in activity["Cause"]


@pytest.mark.parametrize(("per_minute", "minutes"), [(250.0, 2), (99.0, 3), (95.0, 30)])
def test_short_load_and_load_near_the_target_change_nothing(
    scaling: Scaling, count_copies: Callable[[], int], per_minute: float, minutes: int
) -> None:
    scaling.register(COMPONENT)
    scaling.put_policy(COMPONENT, target_value=100.0)
    scaling.record_invocations(per_minute, minutes)
    scaling.evaluate()
    assert (count_copies(), scaling.list_activities()) == (1, [])


def test_copies_stay_within_the_limits(scaling: Scaling, count_copies: Callable[[], int]) -> None:
    scaling.register(COMPONENT, minimum=2, maximum=3)
    scaling.evaluate()
    assert count_copies() == 2  # the limits of the target apply even without a policy
    scaling.put_policy(COMPONENT, target_value=1.0, ScaleOutCooldown=0)
    scaling.record_invocations(1000.0, minutes=3)
    scaling.evaluate()
    assert count_copies() == 3
    scaling.register(COMPONENT, minimum=1, maximum=1)
    scaling.evaluate()
    assert count_copies() == 1


def test_cooldown_delays_further_copies(scaling: Scaling, count_copies: Callable[[], int]) -> None:
    scaling.register(COMPONENT)
    scaling.put_policy(COMPONENT, target_value=100.0, ScaleOutCooldown=120)
    scaling.record_invocations(150.0, minutes=3)
    scaling.evaluate()
    assert count_copies() == 2
    for seconds, expected in ((60.0, 2), (120.0, 4)):
        scaling.record_invocations(400.0, minutes=3, end=START + 120.0)
        scaling.evaluate(START + seconds)
        assert count_copies() == expected


def test_copies_are_removed_after_15_minutes_and_the_cooldown(
    scaling: Scaling, count_copies: Callable[[], int]
) -> None:
    scaling.register(COMPONENT)
    scaling.put_policy(COMPONENT, target_value=100.0, ScaleInCooldown=1200)
    scaling.record_invocations(350.0, minutes=3)
    scaling.evaluate()
    assert count_copies() == 4
    for minutes, expected in ((14, 4), (17, 4), (20, 1)):  # the last minute with load ends at START
        scaling.evaluate(START + minutes * MINUTE)
        assert count_copies() == expected


def test_scale_in_can_be_disabled_and_suspended(scaling: Scaling, count_copies: Callable[[], int]) -> None:
    scaling.register(COMPONENT, minimum=2)
    scaling.evaluate()
    scaling.register(COMPONENT, minimum=1)
    scaling.put_policy(COMPONENT, target_value=100.0, DisableScaleIn=True, ScaleInCooldown=0)
    scaling.evaluate()
    assert count_copies() == 2
    scaling.put_policy(COMPONENT, target_value=100.0, ScaleInCooldown=0)
    scaling.register(COMPONENT, SuspendedState={"DynamicScalingInSuspended": True})
    scaling.evaluate()
    assert count_copies() == 2
    scaling.register(COMPONENT, SuspendedState={"DynamicScalingInSuspended": False})
    scaling.evaluate()
    assert count_copies() == 1


def test_policy_that_needs_the_most_copies_decides(scaling: Scaling, count_copies: Callable[[], int]) -> None:
    scaling.register(COMPONENT)
    scaling.put_policy(COMPONENT, target_value=100.0, name="invocations")
    scaling.put_policy(COMPONENT, target_value=10.0, name="queue", CustomizedMetricSpecification=CUSTOM_METRIC)
    scaling.record_invocations(150.0, minutes=3)
    for minute in range(1, 4):
        scaling.parts.context.metrics.record("mine", {"Queue": "q"}, {"Waiting": 35.0}, START - minute * MINUTE)
    scaling.evaluate()
    assert count_copies() == 4
    assert "policy queue" in scaling.list_activities()[0]["Cause"]


def test_custom_metric_without_points_removes_no_copies(scaling: Scaling, count_copies: Callable[[], int]) -> None:
    scaling.register(COMPONENT, minimum=2)
    scaling.evaluate()
    scaling.register(COMPONENT)
    scaling.put_policy(COMPONENT, target_value=10.0, CustomizedMetricSpecification=CUSTOM_METRIC)
    scaling.evaluate()
    assert count_copies() == 2


def test_concurrency_is_computed_from_the_latencies(scaling: Scaling, count_copies: Callable[[], int]) -> None:
    scaling.register(COMPONENT)
    scaling.put_policy(COMPONENT, target_value=5.0, PredefinedMetricSpecification=CONCURRENCY_METRIC)
    microseconds = {"ModelLatency": 2.9e6, "OverheadLatency": 0.1e6}
    for second in range(1, 31):  # each second, 4 requests of 3 s end, so 12 requests are in progress
        for _ in range(4):
            scaling.parts.context.metrics.record(
                "AWS/SageMaker", {"InferenceComponentName": "one"}, microseconds, START - second, unit="Microseconds"
            )
    scaling.evaluate()
    assert count_copies() == 3


def test_speed_shortens_periods_and_cooldowns(scaling: Scaling, count_copies: Callable[[], int]) -> None:
    settings = replace(scaling.parts.context.settings, autoscaling_speed=60)
    context = replace(scaling.parts.context, settings=settings)
    scaling.scaler = Scaler(context, OperationCaller(context, scaling.parts.registry).call)
    scaling.register(COMPONENT)
    scaling.put_policy(COMPONENT, target_value=60.0)
    for second in range(1, 4):
        scaling.parts.context.metrics.record(
            "AWS/SageMaker", {"InferenceComponentName": "one"}, {"Invocations": 2.0}, START - second
        )
    scaling.evaluate()
    assert count_copies() == 2  # 120 invocations per minute
    scaling.evaluate(START + 16)
    assert count_copies() == 1


def test_instance_count_of_a_variant_is_scaled(parts: ServerParts, model: ImageBehaviour) -> None:  # noqa: ARG001
    parts.deploy()
    scaling = Scaling(parts)
    scaling.register(VARIANT)
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    scaling.put_policy(VARIANT, target_value=10.0, PredefinedMetricSpecification=metric)
    dimensions = {"EndpointName": "e", "VariantName": "main"}
    for minute in range(1, 4):
        parts.context.metrics.record("AWS/SageMaker", dimensions, {"Invocations": 30.0}, START - minute * MINUTE)
    scaling.evaluate()
    (variant,) = parts.wait_for_endpoint()["ProductionVariants"]
    assert (variant["DesiredInstanceCount"], variant["CurrentInstanceCount"]) == (3, 3)


def test_target_of_a_deleted_component_is_deleted(scaling: Scaling) -> None:
    scaling.register(COMPONENT)
    scaling.put_policy(COMPONENT, target_value=100.0)
    components = Components(scaling.parts)
    components.operations.delete({"InferenceComponentName": "one"})
    wait_until(lambda: components.describe("one")["InferenceComponentStatus"] == "gone")
    scaling.evaluate()
    assert scaling.service.describe_targets({})["ScalableTargets"] == []
    assert scaling.service.describe_policies({})["ScalingPolicies"] == []


def test_thread_of_the_scaler_runs_while_there_are_targets(scaling: Scaling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microjobs_orchestrator.local.services.autoscaling.scaler.SHORT_PERIOD_SECONDS", 0.0)
    scaling.scaler.start()
    assert scaling.scaler._thread is None
    scaling.register(COMPONENT, minimum=2)
    scaling.scaler.start()
    wait_until(lambda: len(scaling.list_activities()) == 1)
    scaling.service.deregister_target(COMPONENT)
    wait_until(lambda: scaling.scaler._thread is None)
    scaling.scaler.close()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"ResourceId": "endpoint/e"}, "must be inference-component/NAME"),
        ({"ResourceId": "inference-component/absent"}, "does not exist, or has no copy count"),
        ({"MinCapacity": 2, "MaxCapacity": 1}, "must not be negative or larger than MaxCapacity 1"),
    ],
)
def test_invalid_target_is_refused(scaling: Scaling, members: dict[str, Any], message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        scaling.register(COMPONENT, minimum=1, maximum=2, **members)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"PredefinedMetricSpecification": PER_COPY_METRIC, "TargetValue": 0.0}, "greater than 0"),
        (
            {"CustomizedMetricSpecification": CUSTOM_METRIC, "PredefinedMetricSpecification": PER_COPY_METRIC},
            "exactly one of",
        ),
        ({"CustomizedMetricSpecification": {"MetricName": "m"}}, "needs Namespace and Statistic"),
        (
            {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}},
            "does not fit the scalable dimension",
        ),
    ],
)
def test_invalid_policy_is_refused(scaling: Scaling, members: dict[str, Any], message: str) -> None:
    scaling.register(COMPONENT)
    with pytest.raises(ServiceError, match=message):
        scaling.put_policy(COMPONENT, target_value=1.0, **members)


def test_policy_needs_a_target(scaling: Scaling) -> None:
    with pytest.raises(ServiceError) as error:
        scaling.put_policy(COMPONENT, target_value=1.0)
    assert error.value.code == "ObjectNotFoundException"
