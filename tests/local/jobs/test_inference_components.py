"""Inference components: several models on one endpoint, and their copies."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import inf
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.identity import get_role_arn
from microjobs_orchestrator.local.lifecycle import usage
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import routing
from microjobs_orchestrator.local.resources.endpoints.operations import EndpointConfigOperations
from microjobs_orchestrator.local.resources.inference_components.adapters import ADAPTERS_FOLDER
from microjobs_orchestrator.local.resources.inference_components.component import InferenceComponent
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.resources.inference_components.operations import InferenceComponentOperations
from microjobs_orchestrator.local.runtimes.base import Exit, HostLimits, HostUsage
from microjobs_orchestrator.local.state import Record
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeHost, ImageBehaviour, ReceivedRequest, Reply
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.polling import wait_until

REQUIREMENTS = {"MinMemoryRequiredInMb": 128, "MaxMemoryRequiredInMb": 256, "NumberOfCpuCoresRequired": 0.5}
ADAPTER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"
ADAPTER_URI = "s3://bucket/models/model.tar.gz"


class Components:
    """Inference components on endpoint `e`, which has no model of its own."""

    def __init__(self, parts: ServerParts) -> None:
        self.parts = parts
        self.operations = InferenceComponentOperations(parts.context, parts.registry)

    def start_endpoint(self, variant_members: Mapping[str, Any] = MappingProxyType({}), **config_members: Any) -> None:
        """Start the endpoint, with additional members of its variant and of its configuration."""
        variant = {"VariantName": "main", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1, **variant_members}
        request = {"EndpointConfigName": "c", "ProductionVariants": [variant], "ExecutionRoleArn": get_role_arn()}
        EndpointConfigOperations(self.parts.context, self.parts.registry).create({**request, **config_members})
        self.parts.start_endpoint()
        assert self.parts.wait_for_endpoint()["EndpointStatus"] == "InService"

    def start(self, name: str, copy_count: int = 1, **specification: Any) -> dict[str, Any]:
        model_specification = specification or {"ModelName": "m"}
        self.operations.create(
            {
                "InferenceComponentName": name,
                "EndpointName": "e",
                "VariantName": "main",
                "Specification": {"ComputeResourceRequirements": REQUIREMENTS, **model_specification},
                "RuntimeConfig": {"CopyCount": copy_count},
            }
        )
        return self.wait(name)

    def describe(self, name: str) -> dict[str, Any]:
        record = self.parts.context.state.get(INFERENCE_COMPONENT.arn_type, name)
        return dict(record.description) if record else {"InferenceComponentStatus": "gone"}

    def wait(self, name: str) -> dict[str, Any]:
        description: dict[str, Any] = wait_until(
            lambda: self.describe(name),
            lambda description: description["InferenceComponentStatus"] not in ("Creating", "Updating", "Deleting"),
        )
        return description

    def set_copies(self, name: str, copy_count: int) -> dict[str, Any]:
        """Change the number of copies; return the description after the update."""
        request = {"InferenceComponentName": name, "DesiredRuntimeConfig": {"CopyCount": copy_count}}
        self.operations.update_runtime_config(request)
        return self.wait(name)

    def update(self, name: str, **members: Any) -> dict[str, Any]:
        self.operations.update({"InferenceComponentName": name, **members})
        return self.wait(name)


@pytest.fixture
def components(parts: ServerParts, model: ImageBehaviour) -> Components:  # noqa: ARG001  the fixture creates model `m`
    new_components = Components(parts)
    new_components.start_endpoint()
    return new_components


def invoke(parts: ServerParts, component: str, body: bytes = b"x") -> bytes:
    answer = Invoker(parts)(body, X_Amzn_SageMaker_Inference_Component=component)
    return bytes(answer.data)


def test_component_is_in_service_and_responds(parts: ServerParts, components: Components) -> None:
    description = components.start("one", ModelName="m")
    assert description["InferenceComponentStatus"] == "InService"
    assert description["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    assert invoke(parts, "one") == b"x"


def test_two_components_of_one_endpoint_have_their_own_models(
    parts: ServerParts, components: Components, model: ImageBehaviour
) -> None:
    parts.runtime.behaviours["other"] = ImageBehaviour(invoke=lambda _: Reply(b"other"))
    model.invoke = lambda _: Reply(b"first")
    components.start("one", ModelName="m")
    components.start("two", Container={"Image": "other", "Environment": {"A": "b"}})
    assert (invoke(parts, "one"), invoke(parts, "two")) == (b"first", b"other")
    (host,) = [host for host in parts.running_hosts if host.plan.image == "other"]
    assert host.plan.environment["A"] == "b"


def test_copies_have_the_limits_of_the_specification(parts: ServerParts, components: Components) -> None:
    components.start("one", copy_count=2)
    limits = [host.plan.limits for host in parts.running_hosts]
    assert [(limit.cpus, limit.memory_bytes) for limit in limits if limit] == [(0.5, 256 << 20)] * 2


@pytest.mark.parametrize(
    ("requirements", "limits"),
    [
        ({"MaxMemoryRequiredInMb": 256}, HostLimits(cpus=inf, memory_bytes=256 << 20)),
        ({"NumberOfCpuCoresRequired": 2.0}, HostLimits(cpus=2.0, memory_bytes=None)),
        ({}, None),
    ],
)
def test_missing_requirements_set_no_limits(
    parts: ServerParts, components: Components, requirements: dict[str, float], limits: HostLimits | None
) -> None:
    components.start("one", ModelName="m", ComputeResourceRequirements={"MinMemoryRequiredInMb": 128, **requirements})
    assert [host.plan.limits for host in parts.running_hosts] == [limits]


def test_copies_share_the_requests(parts: ServerParts, components: Components, model: ImageBehaviour) -> None:
    components.start("one", copy_count=3)
    for _ in range(9):
        invoke(parts, "one")
    assert sorted(Counter(request.host for request in model.requests).values()) == [3, 3, 3]


@pytest.mark.usefixtures("model")
def test_random_routing_chooses_a_random_copy(parts: ServerParts, monkeypatch: pytest.MonkeyPatch) -> None:
    components = Components(parts)
    components.start_endpoint({"RoutingConfig": {"RoutingStrategy": "RANDOM"}})
    components.start("one", copy_count=2)
    chosen_copies: list[object] = []

    def choose_last(copies: Sequence[Any]) -> Any:
        chosen_copies.append(copies[-1])
        return copies[-1]

    monkeypatch.setattr(routing, "_random", SimpleNamespace(choice=choose_last))
    for _ in range(3):
        invoke(parts, "one")
    assert len(chosen_copies) == 3


def test_busy_copy_gets_no_further_request(parts: ServerParts, components: Components, model: ImageBehaviour) -> None:
    release, is_busy = threading.Event(), threading.Event()

    def block_first(request: ReceivedRequest) -> Reply:
        if request.body == b"slow":
            is_busy.set()
            release.wait()
        return Reply(request.body)

    model.invoke = block_first
    components.start("one", copy_count=2)
    slow_client = threading.Thread(target=invoke, args=(parts, "one", b"slow"))
    slow_client.start()
    is_busy.wait()
    for _ in range(4):
        invoke(parts, "one")
    release.set()
    slow_client.join()
    assert sorted(Counter(request.host for request in model.requests).values()) == [1, 4]


def test_first_copy_keeps_running_when_the_number_of_copies_changes(parts: ServerParts, components: Components) -> None:
    components.start("one", copy_count=1)
    (first_host,) = parts.running_hosts
    description = components.set_copies("one", 3)
    assert description["RuntimeConfig"] == {"DesiredCopyCount": 3, "CurrentCopyCount": 3}
    assert first_host in parts.running_hosts
    assert len(parts.running_hosts) == 3
    components.set_copies("one", 1)
    wait_until(lambda: parts.running_hosts == [first_host])


def test_component_without_copies_refuses_requests(parts: ServerParts, components: Components) -> None:
    components.start("one", copy_count=1)
    components.set_copies("one", 0)
    error = Invoker(parts).read_error(X_Amzn_SageMaker_Inference_Component="one")
    assert error.code == "ValidationError"
    assert "no capacity to process this request" in error.message
    components.set_copies("one", 1)
    assert invoke(parts, "one") == b"x"


def test_update_of_the_specification_loses_no_request(parts: ServerParts, components: Components) -> None:
    parts.runtime.behaviours["other"] = ImageBehaviour(invoke=lambda _: Reply(b"other"))
    components.start("one", copy_count=2)
    answers: list[bytes] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            answers.append(invoke(parts, "one"))

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    components.update("one", Specification={"Container": {"Image": "other"}})
    wait_until(lambda: b"other" in answers)
    stop.set()
    for sender in senders:
        sender.join()
    assert set(answers) == {b"x", b"other"}
    wait_until(lambda: {host.plan.image for host in parts.running_hosts} == {"other"})


def test_rolling_update_replaces_copies_in_batches(parts: ServerParts, components: Components) -> None:
    new_model = parts.runtime.behaviours["other"] = ImageBehaviour(invoke=lambda _: Reply(b"other"), ping=503)
    components.start("one", copy_count=4)
    policy = {"MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 2}, "WaitIntervalInSeconds": 0}
    request = {"InferenceComponentName": "one", "Specification": {"Container": {"Image": "other"}}}
    components.operations.update({**request, "DeploymentConfig": {"RollingUpdatePolicy": policy}})
    wait_until(lambda: len(parts.running_hosts) == 6)  # the next batch starts when the first batch is healthy
    assert invoke(parts, "one") == b"x"
    new_model.ping = 200
    description = components.wait("one")
    assert description["RuntimeConfig"] == {"DesiredCopyCount": 4, "CurrentCopyCount": 4}
    assert description["LastDeploymentConfig"] == {"RollingUpdatePolicy": policy}
    wait_until(lambda: [host.plan.image for host in parts.running_hosts] == ["other"] * 4)


def test_failed_update_keeps_the_earlier_copies(parts: ServerParts, components: Components) -> None:
    components.start("one")
    description = components.update("one", Specification={"Container": {"Image": "absent"}})
    assert description["InferenceComponentStatus"] == "InService"
    assert description["FailureReason"].startswith("Inference component one: ")
    assert invoke(parts, "one") == b"x"


def test_component_that_cannot_start_fails(parts: ServerParts, components: Components) -> None:
    description = components.start("one", Container={"Image": "absent"})
    assert description["InferenceComponentStatus"] == "Failed"
    assert "absent" in description["FailureReason"]
    error = Invoker(parts).read_error(X_Amzn_SageMaker_Inference_Component="one")
    assert error.message == "Inference Component one is Failed: it must be InService."


def test_target_model_of_a_component_is_refused(parts: ServerParts, components: Components) -> None:
    components.start("one")
    headers = {"X_Amzn_SageMaker_Inference_Component": "one", "X_Amzn_SageMaker_Target_Model": "m.tar.gz"}
    assert Invoker(parts).read_error(**headers).message.startswith("Inference Component one is not a multi-model")


def test_request_without_a_component_is_refused(parts: ServerParts, components: Components) -> None:
    components.start("one")
    assert "Inference Component Name header is required" in Invoker(parts).read_error().message


def test_endpoint_with_components_cannot_be_deleted(parts: ServerParts, components: Components) -> None:
    components.start("one")
    with pytest.raises(ValidationError, match="delete one first"):
        parts.delete_endpoint()
    components.operations.delete({"InferenceComponentName": "one"})
    wait_until(lambda: components.describe("one")["InferenceComponentStatus"] == "gone")
    assert parts.running_hosts == []
    parts.delete_endpoint()
    wait_until(lambda: parts.describe_endpoint()["EndpointStatus"] == "gone")


def test_endpoint_update_that_gives_a_model_to_the_variant_of_a_component_is_refused(
    parts: ServerParts, components: Components
) -> None:
    components.start("one")
    parts.make_config("models")
    with pytest.raises(ValidationError, match="Inference component one uses variant main"):
        parts.update_endpoint("models")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"VariantName": "other"}, "Endpoint e has no variant other; it has: main"),
        ({"Specification": {"ModelName": "m", "Container": {"Image": "i"}}}, "exactly one of ModelName and Container"),
        ({"Specification": {"ModelName": "absent"}}, "Could not find model"),
        ({"Specification": {"Container": {"Environment": {}}}}, "Specification.Container must have an Image"),
        (
            {
                "Specification": {
                    "ModelName": "m",
                    "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 256, "MaxMemoryRequiredInMb": 128},
                }
            },
            "MinMemoryRequiredInMb 256 is more than MaxMemoryRequiredInMb 128",
        ),
    ],
)
def test_invalid_component_is_refused(components: Components, members: dict[str, Any], reason: str) -> None:
    request = {
        "InferenceComponentName": "one",
        "EndpointName": "e",
        "VariantName": "main",
        "Specification": {"ModelName": "m"},
        "RuntimeConfig": {"CopyCount": 1},
        **members,
    }
    with pytest.raises(ServiceError) as error:
        components.operations.create(request)
    assert reason in error.value.message


def test_component_needs_a_variant_without_a_model(parts: ServerParts, model: ImageBehaviour) -> None:  # noqa: ARG001
    parts.deploy()
    with pytest.raises(ValidationError, match="Variant main of endpoint e has a ModelName"):
        Components(parts).start("one")


def test_variants_without_a_model_need_a_role(parts: ServerParts) -> None:
    request = {"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "v", "InstanceType": "ml.m5.large"}]}
    with pytest.raises(ValidationError, match="set ExecutionRoleArn to use inference components"):
        EndpointConfigOperations(parts.context, parts.registry).create(request)


def test_restarted_server_resumes_with_running_copies(parts: ServerParts, components: Components) -> None:
    components.start("one", copy_count=2)
    hosts = {host.name for host in parts.running_hosts}
    restarted_parts = parts.restart({INFERENCE_COMPONENT.arn_type: make_component})
    try:
        assert invoke(restarted_parts, "one") == b"x"
        assert {host.name for host in restarted_parts.running_hosts} == hosts
    finally:
        restarted_parts.close()


def make_component(context: Context, record: Record) -> InferenceComponent:
    return InferenceComponent(context, record, find_component=lambda _: None, find_endpoint=lambda _: None)


def _try_invoke(parts: ServerParts, component: str = "one") -> bytes | None:
    try:
        return invoke(parts, component)
    except ServiceError:
        return None


def test_components_are_listed_by_endpoint_and_variant(components: Components) -> None:
    components.start("one")

    def list_names(**filters: Any) -> list[str]:
        return [item["InferenceComponentName"] for item in components.operations.list(filters)["InferenceComponents"]]

    assert list_names() == list_names(EndpointNameEquals="e") == list_names(VariantNameEquals="main") == ["one"]
    assert list_names(EndpointNameEquals="other") == list_names(VariantNameEquals="other") == []


# --- adapters ---


@pytest.fixture
def components_with_base(components: Components, model: ImageBehaviour, put_archive: Callable[..., str]) -> Components:
    """The components, after the start of the component `base`, whose two copies can load adapters."""
    model.supports_adapters = True
    model.invoke = lambda request: Reply(request.headers.get(ADAPTER_HEADER, "none").encode())
    components.start("base", copy_count=2)
    assert put_archive(weights="w") == ADAPTER_URI
    return components


def start_adapter(components: Components) -> dict[str, Any]:
    specification = {"BaseInferenceComponentName": "base", "Container": {"ArtifactUrl": ADAPTER_URI}}
    components.operations.create(
        {"InferenceComponentName": "adapter", "EndpointName": "e", "Specification": specification}
    )
    return components.wait("adapter")


def test_adapter_is_loaded_into_each_copy_of_its_base(parts: ServerParts, components_with_base: Components) -> None:
    description = start_adapter(components_with_base)
    assert (description["InferenceComponentStatus"], description["VariantName"]) == ("InService", "main")
    assert [host.adapters for host in parts.running_hosts] == [{"adapter": f"{ADAPTERS_FOLDER}/adapter"}] * 2
    assert (invoke(parts, "adapter"), invoke(parts, "base")) == (b"adapter", b"none")


def test_restarted_copy_loads_the_adapter_again(parts: ServerParts, components_with_base: Components) -> None:
    components_with_base.set_copies("base", 1)
    start_adapter(components_with_base)
    wait_until(lambda: len(parts.running_hosts) == 1)
    parts.running_hosts[0].end(Exit(1))
    assert wait_until(lambda: _try_invoke(parts, "adapter")) == b"adapter"
    (host,) = parts.running_hosts
    assert list(host.adapters) == ["adapter"]


def test_new_copy_of_the_base_loads_the_adapter(parts: ServerParts, components_with_base: Components) -> None:
    start_adapter(components_with_base)
    components_with_base.set_copies("base", 3)
    assert {invoke(parts, "adapter") for _ in range(6)} == {b"adapter"}
    assert [list(host.adapters) for host in parts.running_hosts] == [["adapter"]] * 3


def test_deleted_adapter_is_removed_from_the_copies(parts: ServerParts, components_with_base: Components) -> None:
    start_adapter(components_with_base)
    with pytest.raises(ValidationError, match="delete adapter first"):
        components_with_base.operations.delete({"InferenceComponentName": "base"})
    components_with_base.operations.delete({"InferenceComponentName": "adapter"})
    wait_until(lambda: components_with_base.describe("adapter")["InferenceComponentStatus"] == "gone")
    assert [host.adapters for host in parts.running_hosts] == [{}, {}]
    assert invoke(parts, "base") == b"none"


def test_adapter_fails_if_the_container_does_not_support_adapters(
    components_with_base: Components, model: ImageBehaviour
) -> None:
    model.supports_adapters = False
    description = start_adapter(components_with_base)
    assert description["InferenceComponentStatus"] == "Failed"
    assert "POST /adapters answered 404: no such path" in description["FailureReason"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"RuntimeConfig": {"CopyCount": 1}}, "An adapter has no RuntimeConfig"),
        ({"Specification": {"BaseInferenceComponentName": "base"}}, "must have only an ArtifactUrl"),
        (
            {"Specification": {"BaseInferenceComponentName": "absent", "Container": {"ArtifactUrl": ADAPTER_URI}}},
            "Could not find inference component",
        ),
    ],
)
def test_invalid_adapter_is_refused(components_with_base: Components, members: dict[str, Any], reason: str) -> None:
    specification = {"BaseInferenceComponentName": "base", "Container": {"ArtifactUrl": ADAPTER_URI}}
    request = {"InferenceComponentName": "adapter", "EndpointName": "e", "Specification": specification, **members}
    with pytest.raises(ServiceError) as error:
        components_with_base.operations.create(request)
    assert reason in error.value.message


def test_invocations_are_metrics_of_the_component_and_of_the_variant(
    parts: ServerParts, components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded_dimensions: list[Mapping[str, str]] = []

    def record(_: str, dimensions: Mapping[str, str], values: Mapping[str, float], **__: Any) -> None:
        if "Invocations" in values:
            recorded_dimensions.append(dimensions)

    components.start("one")
    monkeypatch.setattr(parts.context.metrics, "record", record)
    invoke(parts, "one")
    assert recorded_dimensions == [{"EndpointName": "e", "VariantName": "main"}, {"InferenceComponentName": "one"}]


def test_invocations_per_copy_are_divided_by_the_number_of_copies(parts: ServerParts, components: Components) -> None:
    components.start("one", copy_count=2)
    for _ in range(3):
        invoke(parts, "one")
    metrics = parts.context.metrics
    (series,) = metrics.find_series("AWS/SageMaker", "InvocationsPerCopy", {"InferenceComponentName": "one"})
    assert sum(point.statistics.total for point in metrics.read(series)) == 3 / 2


def test_resource_usage_of_copies_is_recorded(
    parts: ServerParts, components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "FIRST_MEASUREMENT_SECONDS", 0.05)
    monkeypatch.setattr(
        FakeHost, "measure", lambda _: HostUsage(cpu_seconds=1.0, memory_bytes=1 << 30, memory_limit_bytes=4 << 30)
    )
    components.start("one")
    summaries = wait_until(lambda: parts.context.metrics.list_series("/aws/sagemaker/InferenceComponents"))
    assert {series.dimensions for series, _ in summaries} == {(("InferenceComponentName", "one"),)}
