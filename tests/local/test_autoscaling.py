"""Tests of Application Auto Scaling with boto3: a policy scales the copies of a component under load."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import REPOSITORY
from tests.local.clients import LocalServer, make_unique_name, run_server
from tests.local.resources.examples.inference_components import make_inference_component_request
from tests.local.test_hosting import ROW, make_model, wait_for_endpoint
from tests.polling import wait_until

SECTION = (REPOSITORY / "docs/using/hosting.md").read_text().partition("## Automatic scaling")[2]
EXAMPLE = SECTION.partition("```python\n")[2].partition("```")[0].replace('"inference-component/first"', "resource")
"""The example of the page; `resource` stands for its inference component."""


@pytest.fixture
def fast_server(tmp_path: Path) -> Iterator[LocalServer]:
    """Run a server in which a minute of a policy takes one second."""
    with run_server(tmp_path, runtime="process", autoscaling_speed=60) as server:
        yield server


def deploy_component(server: LocalServer) -> tuple[str, str]:
    """Create a component with one copy; return the names of its endpoint and of the component."""
    name = make_unique_name("scaled")
    request = {**make_inference_component_request(server, make_model(server, 1.0)), "RuntimeConfig": {"CopyCount": 1}}
    wait_for_endpoint(server, request["EndpointName"])
    server.sagemaker.create_inference_component(InferenceComponentName=name, **request)
    wait_for_component(server, name)
    return request["EndpointName"], name


def wait_for_component(server: LocalServer, name: str) -> dict[str, Any]:
    description: dict[str, Any] = wait_until(
        lambda: server.sagemaker.describe_inference_component(InferenceComponentName=name),
        lambda description: description["InferenceComponentStatus"] in ("InService", "Failed"),
    )
    assert description["InferenceComponentStatus"] == "InService", description.get("FailureReason")
    return description


@pytest.mark.slow
def test_example_of_the_documentation_scales_under_load(fast_server: LocalServer) -> None:
    endpoint, component = deploy_component(fast_server)
    runtime, stop = fast_server.client("sagemaker-runtime"), threading.Event()
    namespace = {
        "autoscaling": fast_server.client("application-autoscaling"),
        "resource": f"inference-component/{component}",
    }
    exec(EXAMPLE, namespace)  # noqa: S102  the code of the page
    scaling: Any = namespace["autoscaling"]

    def invoke_until_stop() -> None:
        while not stop.is_set():
            runtime.invoke_endpoint(
                EndpointName=endpoint, InferenceComponentName=component, Body=ROW, ContentType="text/csv"
            )

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(invoke_until_stop) for _ in range(2)]
        try:
            activity = wait_until(lambda: list_activities(scaling, component), bool)[-1]
            wait_until(lambda: count_copies(fast_server, component), lambda count: count > 1)
        finally:
            stop.set()
        for client in clients:
            client.result()
    assert activity["StatusCode"] == "Successful"
    assert "policy load" in activity["Cause"]
    scaling.register_scalable_target(**make_target_members(component), MaxCapacity=1)
    wait_until(lambda: count_copies(fast_server, component), lambda count: count == 1)
    fast_server.sagemaker.delete_inference_component(InferenceComponentName=component)
    wait_until(
        lambda: scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"],
        lambda targets: not targets,
    )


def make_target_members(component: str) -> dict[str, Any]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"inference-component/{component}",
        "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
    }


def list_activities(scaling: Any, component: str) -> list[Any]:
    activities: list[Any] = scaling.describe_scaling_activities(**make_target_members(component))["ScalingActivities"]
    return activities


def count_copies(server: LocalServer, component: str) -> int:
    return int(wait_for_component(server, component)["RuntimeConfig"]["CurrentCopyCount"])


def test_targets_and_policies_are_described_and_deleted(process_server: LocalServer) -> None:
    _, component = deploy_component(process_server)
    scaling, target_members = process_server.client("application-autoscaling"), make_target_members(component)
    arn = scaling.register_scalable_target(**target_members, MinCapacity=1, MaxCapacity=2)["ScalableTargetARN"]
    metric = {"PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"}
    config = {"TargetValue": 5.0, "PredefinedMetricSpecification": metric}
    policy = {**target_members, "PolicyName": "p", "PolicyType": "TargetTrackingScaling"}
    scaling.put_scaling_policy(**policy, TargetTrackingScalingPolicyConfiguration=config)
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["ScalableTargetARN"], target["MinCapacity"], target["MaxCapacity"]) == (arn, 1, 2)
    (description,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert description["TargetTrackingScalingPolicyConfiguration"] == config
    scaling.delete_scaling_policy(**target_members, PolicyName="p")
    assert scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"] == []
    scaling.deregister_scalable_target(**target_members)
    with pytest.raises(ClientError, match="ObjectNotFoundException"):
        scaling.deregister_scalable_target(**target_members)
    with pytest.raises(ClientError, match=r"ValidationException.*Not supported here: PolicyType"):
        scaling.put_scaling_policy(**{**policy, "PolicyType": "StepScaling"})
    process_server.sagemaker.delete_inference_component(InferenceComponentName=component)
