"""Models with several containers, in endpoints and in transform jobs."""

import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.metrics.statistics import Statistics
from microjobs_orchestrator.local.resources.endpoints import container_replica
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.resources.models import chain, health
from microjobs_orchestrator.local.runtimes.base import Exit, WrongPortError
from microjobs_orchestrator.local.services import sagemaker_runtime
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeHost, ImageBehaviour, ReceivedRequest, Reply
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.local.jobs.test_inference_components import Components
from tests.polling import wait_until

LOG_GROUP = "/aws/sagemaker/Endpoints/e"
LABELS = {"com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true"}
ASYNC_CONFIG = {"OutputConfig": {"S3OutputPath": "s3://bucket/out"}}
SLOW_SECONDS = 0.02
MULTI_MODEL_CONTAINER = {"Image": "b", "ModelDataUrl": "s3://bucket/x/", "Mode": "MultiModel"}
IMAGES = ("scale", "predict", "label")

Behaviours = Mapping[str, ImageBehaviour]


def make_appending_behaviour(image: str) -> ImageBehaviour:
    """Return the behaviour of an image that appends its name to the body of each request, and returns the result. The
    content type of the response also contains the name."""

    def invoke(request: ReceivedRequest) -> Reply:
        return Reply(request.body + f">{image}".encode(), headers={"Content-Type": f"application/{image}"})

    return ImageBehaviour(invoke, labels=LABELS)


@pytest.fixture
def behaviours(parts: ServerParts) -> Behaviours:
    """The behaviour of the images, by name. The model `m` has the images `scale` and `predict`."""
    parts.runtime.behaviours.update({image: make_appending_behaviour(image) for image in IMAGES})
    parts.make_multi_container_model("scale", "predict")
    return parts.runtime.behaviours


@pytest.fixture
def invoke(parts: ServerParts, behaviours: Behaviours) -> Invoker:  # noqa: ARG001  endpoint `e` uses the images of `behaviours`
    parts.deploy()
    return Invoker(parts)


@pytest.fixture
def invoke_directly(parts: ServerParts, behaviours: Behaviours) -> Invoker:  # noqa: ARG001  endpoint `e` uses the images
    """A client of endpoint `e`, whose model has the Mode Direct: each request names its container."""
    parts.make_multi_container_model("scale", "predict", name="direct", mode="Direct")
    parts.deploy(main={"ModelName": "direct"})
    return Invoker(parts)


@pytest.fixture(autouse=True)
def short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_replica, "FIRST_RESTART_DELAY_SECONDS", 0.05)


# --- serial requests ---


def test_response_of_a_container_is_the_request_of_the_next_one(invoke: Invoker) -> None:
    response = invoke(b"x")
    assert response.data == b"x>scale>predict"
    assert response.headers["Content-Type"] == "application/predict"


def test_first_container_gets_content_type_and_last_gets_accept(parts: ServerParts, behaviours: Behaviours) -> None:
    parts.make_multi_container_model(*IMAGES, name="three")
    parts.deploy(main={"ModelName": "three"})
    Invoker(parts)(b"x", Content_Type="text/csv", Accept="image/png", X_Amzn_SageMaker_Custom_Attributes="a=b")
    received_headers = [behaviours[image].requests[0].headers for image in IMAGES]
    types = ["text/csv", "application/scale", "application/predict"]
    assert [headers["Content-Type"] for headers in received_headers] == types
    assert [headers.get("Accept") for headers in received_headers] == [None, None, "image/png"]
    assert {headers["X-Amzn-SageMaker-Custom-Attributes"] for headers in received_headers} == {"a=b"}


def test_large_response_reaches_the_next_container(
    invoke: Invoker, behaviours: Behaviours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "MAX_MEMORY_BYTES", 1000)
    behaviours["scale"].invoke = lambda _: Reply(b"y" * 300_000)
    assert invoke(b"x").data == b"y" * 300_000 + b">predict"
    assert not behaviours["predict"].requests[0].chunked


@pytest.mark.parametrize(("status", "source"), [(400, "client"), (500, "server")])
def test_error_of_a_container_ends_the_chain(invoke: Invoker, behaviours: Behaviours, status: int, source: str) -> None:
    behaviours["scale"].invoke = lambda _: Reply(b"no", status)
    error = invoke.read_model_error()
    assert error["Message"].startswith(f'Received {source} error ({status}) from container-1 with message "no".')
    assert (error["OriginalStatusCode"], error["OriginalMessage"]) == (status, "no")
    assert behaviours["predict"].requests == []


def test_error_names_the_last_container(invoke: Invoker, behaviours: Behaviours) -> None:
    behaviours["predict"].invoke = lambda _: Reply(b"no", 400)
    assert "from container-2 with" in invoke.read_model_error()["Message"]


def test_broken_connection_names_the_container(invoke: Invoker, behaviours: Behaviours, parts: ServerParts) -> None:
    last_host = parts.running_hosts[1]

    def end(_: ReceivedRequest) -> Reply:
        last_host.end(Exit(1))
        return Reply()

    behaviours["predict"].invoke = end
    assert "could not get a response from the container-2 endpoint" in invoke.read_model_error()["OriginalMessage"]


def test_time_limit_is_for_the_whole_chain(
    invoke: Invoker, behaviours: Behaviours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sagemaker_runtime, "RESPONSE_TIMEOUT", 2)
    released = threading.Event()

    def respond_after(seconds: float) -> Any:
        def respond(request: ReceivedRequest) -> Reply:
            released.wait(seconds)
            return Reply(request.body)

        return respond

    behaviours["scale"].invoke, behaviours["predict"].invoke = respond_after(1), respond_after(10)
    start_time = time.monotonic()
    message = invoke.read_model_error()["Message"]
    released.set()
    assert "timed out while waiting for a response from container container-2" in message
    assert time.monotonic() - start_time < 2.9


def test_last_container_streams(invoke: Invoker, behaviours: Behaviours) -> None:
    behaviours["predict"].invoke = lambda request: Reply(chunks=[request.body, b"!"])
    stream = invoke(b"x", path="invocations-response-stream").data
    assert b"x>scale" in stream
    assert b"!" in stream


def test_error_before_the_stream_names_the_container(invoke: Invoker, behaviours: Behaviours) -> None:
    behaviours["scale"].invoke = lambda _: Reply(b"no", 400)
    assert "from container-1 with message" in invoke.read_model_error(path="invocations-response-stream")["Message"]


# --- direct requests ---


@pytest.mark.parametrize(("name", "image"), [("container-1", "scale"), ("container-2", "predict")])
def test_request_chooses_its_container(invoke_directly: Invoker, behaviours: Behaviours, name: str, image: str) -> None:
    response = invoke_directly(b"x", Accept="text/csv", X_Amzn_SageMaker_Target_Container_Hostname=name)
    assert response.data == f"x>{image}".encode()
    assert behaviours[image].requests[0].headers["Accept"] == "text/csv"


def test_error_names_the_chosen_container(invoke_directly: Invoker, behaviours: Behaviours) -> None:
    behaviours["predict"].invoke = lambda _: Reply(b"no", 400)
    error = invoke_directly.read_model_error(X_Amzn_SageMaker_Target_Container_Hostname="container-2")
    assert "Received client error (400) from container-2" in error["Message"]


def test_chosen_container_streams(invoke_directly: Invoker, behaviours: Behaviours) -> None:
    behaviours["predict"].invoke = lambda request: Reply(chunks=[request.body, b"!"])
    headers = {"X_Amzn_SageMaker_Target_Container_Hostname": "container-2"}
    assert b"!" in invoke_directly(b"x", path="invocations-response-stream", **headers).data


def test_unknown_or_missing_container_is_refused(invoke_directly: Invoker, behaviours: Behaviours) -> None:
    unknown_error = invoke_directly.read_error(X_Amzn_SageMaker_Target_Container_Hostname="container-3")
    missing_error = invoke_directly.read_error()
    assert (unknown_error.code, missing_error.code) == ("ValidationError", "ValidationError")
    assert "container-3 does not exist" in unknown_error.message
    assert "is missing" in missing_error.message
    assert "container-1, container-2" in missing_error.message
    assert behaviours["scale"].requests == []


def test_target_container_requires_the_mode_direct(invoke: Invoker, behaviours: Behaviours, parts: ServerParts) -> None:
    serial_error = invoke.read_error(X_Amzn_SageMaker_Target_Container_Hostname="container-1")
    parts.make_model("one", "scale")
    parts.make_config("one", main={"ModelName": "one"})
    parts.start_endpoint("one", "one")
    parts.wait_for_endpoint("one")
    single_error = invoke.read_error(name="one", X_Amzn_SageMaker_Target_Container_Hostname="primary")
    for error in (serial_error, single_error):
        assert error.code == "ValidationError"
        assert "requires a model whose InferenceExecutionConfig has the Mode Direct" in error.message
    assert behaviours["scale"].requests == []


# --- metrics ---


def read_metrics(parts: ServerParts, container: str) -> Mapping[str, Statistics]:
    """Return the statistics of a container's metrics, by name."""
    dimensions = {("EndpointName", "e"), ("VariantName", "main"), ("ContainerName", container)}
    return {
        series.name: Statistics.merge(point.statistics for point in parts.context.metrics.read(series))
        for series, _ in parts.context.metrics.list_series("AWS/SageMaker")
        if set(series.dimensions) == dimensions
    }


def test_latency_of_each_container_is_recorded(invoke: Invoker, behaviours: Behaviours, parts: ServerParts) -> None:
    behaviours["scale"].invoke = lambda request: respond_slowly(request, b"")
    invoke(b"x")
    behaviours["scale"].invoke = lambda _: Reply(b"no", 400)
    invoke.read_model_error()
    first_metrics, last_metrics = (read_metrics(parts, f"container-{number}") for number in (1, 2))
    assert (set(first_metrics), set(last_metrics)) == ({"ContainerLatency"}, {"ContainerLatency"})
    assert (first_metrics["ContainerLatency"].count, last_metrics["ContainerLatency"].count) == (2, 1)
    assert first_metrics["ContainerLatency"].maximum >= SLOW_SECONDS * 1e6


def test_invocations_of_a_chosen_container_are_counted(
    invoke_directly: Invoker, behaviours: Behaviours, parts: ServerParts
) -> None:
    behaviours["predict"].invoke = lambda _: Reply(b"no", 400)
    invoke_directly.read_model_error(X_Amzn_SageMaker_Target_Container_Hostname="container-2")
    metrics = read_metrics(parts, "container-2")
    assert {name: metrics[name].total for name in ("Invocations", "Invocation4XXErrors", "Invocation5XXErrors")} == {
        "Invocations": 1,
        "Invocation4XXErrors": 1,
        "Invocation5XXErrors": 0,
    }
    assert {"ContainerLatency", "OverheadLatency"} <= set(metrics)
    assert read_metrics(parts, "container-1") == {}


# --- hosts ---


def test_each_container_has_its_own_ports(invoke: Invoker, parts: ServerParts) -> None:  # noqa: ARG001
    plans = [host.plan for host in parts.running_hosts]
    assert [plan.port for plan in plans] == [8081, 8082]
    assert [plan.environment["SAGEMAKER_BIND_TO_PORT"] for plan in plans] == ["8081", "8082"]
    ranges = [plan.environment["SAGEMAKER_SAFE_PORT_RANGE"] for plan in plans]
    assert ranges == ["10000-10999", "11000-11999"]


def test_single_container_gets_no_port_variable(parts: ServerParts, behaviours: Behaviours) -> None:  # noqa: ARG001
    parts.make_multi_container_model("scale", name="one")
    parts.deploy(main={"ModelName": "one"})
    (host,) = parts.running_hosts
    assert host.plan.port == 8080
    assert "SAGEMAKER_BIND_TO_PORT" not in host.plan.environment


def test_each_container_has_its_image_data_and_variables(parts: ServerParts, behaviours: Behaviours) -> None:  # noqa: ARG001
    containers = [
        {"Image": image, "Environment": {"NAME": image}, "ModelDataSource": {"S3DataSource": make_source(parts, image)}}
        for image in IMAGES
    ]
    parts.make_multi_container_model(name="three", Containers=containers)
    description = parts.deploy(main={"ModelName": "three"})
    hosts = parts.running_hosts
    assert [host.plan.image for host in hosts] == list(IMAGES)
    assert [host.plan.environment["NAME"] for host in hosts] == list(IMAGES)
    assert [host.files for host in hosts] == [{"weights": image.encode()} for image in IMAGES]
    images = [image["SpecifiedImage"] for image in description["ProductionVariants"][0]["DeployedImages"]]
    assert images == list(IMAGES)


def make_source(parts: ServerParts, name: str) -> dict[str, str]:
    parts.put(f"{name}/weights", name.encode())
    return {"S3Uri": f"s3://bucket/{name}/", "S3DataType": "S3Prefix", "CompressionType": "None"}


def test_up_to_15_containers_keep_their_order(parts: ServerParts) -> None:
    images = [f"image-{number}" for number in range(1, 16)]
    parts.runtime.behaviours.update({image: make_appending_behaviour(image) for image in images})
    parts.make_multi_container_model(*images)
    parts.deploy()
    assert Invoker(parts)(b"x").data.decode().split(">") == ["x", *images]


def test_containers_have_log_streams_with_their_names(parts: ServerParts, behaviours: Behaviours) -> None:  # noqa: ARG001
    containers = [{"Image": image, "ContainerHostname": f"my-{image}"} for image in IMAGES]
    parts.make_multi_container_model(name="named", Containers=containers)
    parts.deploy(main={"ModelName": "named"})
    streams = parts.read_log(LOG_GROUP)
    instance = parts.running_hosts[0].name.removesuffix("-01")
    assert set(streams) == {f"main/{instance}/my-{image}" for image in IMAGES}


def test_unhealthy_container_fails_the_endpoint(parts: ServerParts, behaviours: Behaviours) -> None:
    behaviours["predict"].ping = 503
    limit = {"ContainerStartupHealthCheckTimeoutInSeconds": 0.3}
    reason = parts.deploy(main=limit)["FailureReason"]
    assert reason.startswith("The container-2 container for production variant main did not pass the ping health check")
    assert "GET /ping did not answer 200 within 0.3 s" in reason
    assert "SAGEMAKER_BIND_TO_PORT" in reason
    assert "/container-2 in /aws/sagemaker/Endpoints/e" in reason


@pytest.mark.usefixtures("behaviours")
def test_container_on_the_default_port_fails_the_endpoint_soon(
    parts: ServerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(host: FakeHost, timeout: float) -> socket.socket:
        if host.name.endswith("-02"):
            raise WrongPortError
        return connect_to_server(host, timeout)

    connect_to_server = FakeHost.connect
    monkeypatch.setattr(FakeHost, "connect", connect)
    monkeypatch.setattr(health, "WRONG_PORT_TIMEOUT", 0.2)
    reason = parts.deploy()["FailureReason"]
    assert reason.startswith("The container-2 container")
    assert "It listens on port 8080, but each of several containers must listen on the port of the" in reason
    assert "SAGEMAKER_BIND_TO_PORT" in reason


def test_container_that_ends_at_its_start_is_named(parts: ServerParts, behaviours: Behaviours) -> None:
    behaviours["scale"].ping = 503
    behaviours["predict"].exit_at_start = Exit(7)
    reason = parts.deploy()["FailureReason"]
    assert reason.startswith("The container-2 container")
    assert "Exit code: 7" in reason


def test_missing_image_of_any_container_fails_the_endpoint(parts: ServerParts, behaviours: Behaviours) -> None:  # noqa: ARG001
    parts.make_multi_container_model("scale", "absent", name="n")
    assert "image absent does not exist" in parts.deploy(main={"ModelName": "n"})["FailureReason"]
    assert parts.runtime.hosts == {}


def test_all_containers_restart_when_one_ends(invoke: Invoker, behaviours: Behaviours, parts: ServerParts) -> None:
    first_host, last_host = parts.running_hosts
    behaviours["scale"].ping = 503  # the restarted replica does not serve yet
    last_host.end(Exit(3))
    wait_until(lambda: len(parts.runtime.started_hosts) == 4)
    assert first_host.has_ended
    error = invoke.read_error()
    assert (error.code, error.status) == ("ServiceUnavailable", 503)
    behaviours["scale"].ping = 200
    assert wait_until(lambda: try_invoke(invoke)) == b"x>scale>predict"
    lines = next(lines for name, lines in parts.read_log(LOG_GROUP).items() if name.endswith("/container-2"))
    assert "the container container-2 ended by itself and is started again in 0.05 s. Exit code: 3." in "".join(lines)


def test_silent_container_is_replaced_while_another_one_answers(
    parts: ServerParts, behaviours: Behaviours, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("PING_INTERVAL_SECONDS", 0.02), ("SILENCE_TIMEOUT_SECONDS", 0.3)):
        monkeypatch.setattr(container_replica, name, seconds)
    parts.make_multi_container_model("scale", "predict", name="direct", mode="Direct")
    parts.deploy(main={"ModelName": "direct"})
    invoke, silent_host = Invoker(parts), parts.running_hosts[1]
    behaviours["predict"].unhealthy_hosts = {silent_host.name}
    headers = {"X_Amzn_SageMaker_Target_Container_Hostname": "container-1"}

    def use_first_container() -> list[str]:
        """Invoke the container that answers; return the log lines about a silent container."""
        with suppress(ServiceError):  # the replica is restarting
            invoke(b"x", **headers)
        return [line for lines in parts.read_log(LOG_GROUP).values() for line in lines if "neither" in line]

    (reason,) = wait_until(use_first_container)
    assert silent_host.has_ended
    assert "the container container-2 answered neither a request nor GET /ping with 200 for 0.3 s" in reason


def try_invoke(invoke: Invoker) -> bytes:
    try:
        return bytes(invoke().data)
    except ServiceError:
        return b""


def test_hosts_are_adopted_after_the_server_was_killed(invoke: Invoker, parts: ServerParts) -> None:
    assert invoke().data == b"x>scale>predict"
    restarted_parts = parts.restart()
    wait_until(lambda: restarted_parts.describe_endpoint()["EndpointStatus"] == "InService")
    assert wait_until(lambda: try_invoke(Invoker(restarted_parts))) == b"x>scale>predict"
    assert len(parts.runtime.started_hosts) == 2
    restarted_parts.close()


def test_all_hosts_restart_if_one_ended_while_no_server_ran(invoke: Invoker, parts: ServerParts) -> None:
    assert invoke().data == b"x>scale>predict"
    endpoint = parts.registry.find("endpoint/e")
    assert isinstance(endpoint, Endpoint)
    replica = endpoint.choose_replica()
    assert replica is not None
    replica.abandon()  # like a killed server, this replica does not start its hosts again
    parts.running_hosts[0].end(Exit(1))
    restarted_parts = parts.restart()
    assert wait_until(lambda: try_invoke(Invoker(restarted_parts))) == b"x>scale>predict"
    restarted_parts.close()


def test_update_loses_no_request(invoke: Invoker, behaviours: Behaviours, parts: ServerParts) -> None:
    behaviours["scale"].invoke = lambda request: respond_slowly(request, b">scale")
    parts.make_multi_container_model(*IMAGES, name="next")
    parts.make_config("next", main={"ModelName": "next"})
    stop, answers = threading.Event(), list[bytes]()

    def send_all() -> None:
        while not stop.is_set():
            answers.append(invoke().data)

    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send_all) for _ in range(4)]
        parts.update_endpoint("next")
        wait_until(lambda: answers[-1:] == [b"x>scale>predict>label"])
        wait_until(lambda: len(parts.running_hosts) == 3)
        stop.set()
    for sender in senders:
        sender.result()
    assert set(answers) == {b"x>scale>predict", b"x>scale>predict>label"}


def respond_slowly(request: ReceivedRequest, suffix: bytes) -> Reply:
    time.sleep(SLOW_SECONDS)
    return Reply(request.body + suffix)


@pytest.mark.usefixtures("behaviours")
def test_copies_of_an_inference_component_have_all_containers(parts: ServerParts) -> None:
    components = Components(parts)
    components.start_endpoint()
    description = components.start("one", copy_count=2, ModelName="m")
    assert description["InferenceComponentStatus"] == "InService", description.get("FailureReason")
    assert Invoker(parts)(b"x", X_Amzn_SageMaker_Inference_Component="one").data == b"x>scale>predict"
    assert len(parts.running_hosts) == 4


# --- asynchronous invocations ---


def test_asynchronous_request_passes_through_all_containers(parts: ServerParts, behaviours: Behaviours) -> None:  # noqa: ARG001
    invoke_asynchronously(parts, b"x" * 200_000)
    (content,) = wait_until(lambda: list(parts.read_outputs().values()))
    assert content == b"x" * 200_000 + b">scale>predict"


def test_failure_of_an_asynchronous_request_names_the_container(parts: ServerParts, behaviours: Behaviours) -> None:
    behaviours["predict"].invoke = lambda _: Reply(b"no", 400)
    invoke_asynchronously(parts, b"x")
    lines = wait_until(
        lambda: [line for lines in parts.read_log(LOG_GROUP).values() for line in lines if "failed" in line]
    )
    assert 'container-2 answered 400: "no"' in lines[0]


def invoke_asynchronously(parts: ServerParts, content: bytes) -> None:
    """Deploy the model `m`, and invoke it with an object."""
    parts.make_config("async", asynchronous=ASYNC_CONFIG)
    parts.start_endpoint("e", "async")
    parts.wait_for_endpoint()
    location = parts.put("in", content)
    assert Invoker(parts)(b"", path="async-invocations", X_Amzn_SageMaker_InputLocation=location).status_code == 202


# --- transform jobs ---


def test_objects_pass_through_all_containers_of_each_instance(parts: ServerParts, behaviours: Behaviours) -> None:
    for name in "abc":
        parts.put(f"in/{name}", name.encode())
    job = parts.transform(host_count=2, ContentType="text/csv", Accept="text/plain")
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert parts.read_outputs() == {f"{name}.out": f"{name}>scale>predict".encode() for name in "abc"}
    assert {request.host for request in behaviours["scale"].requests} == {"algo-1-01", "algo-2-01"}
    assert {request.host for request in behaviours["predict"].requests} == {"algo-1-02", "algo-2-02"}
    assert behaviours["predict"].requests[0].headers["Accept"] == "text/plain"
    streams = {name.partition("/")[2].rpartition("/")[2] for name in parts.read_log("/aws/sagemaker/TransformJobs")}
    assert streams == {"container-1", "container-2"}


def test_transform_error_names_the_container(parts: ServerParts, behaviours: Behaviours) -> None:
    behaviours["predict"].invoke = lambda _: Reply(b"no", 400)
    parts.put("in/a", b"a")
    reason = parts.transform()["FailureReason"]
    message = 's3://bucket/in/a: container container-2: bad HTTP status received from algorithm: 400, "no"'
    assert reason == f"ClientError: {message}"


def test_unhealthy_container_fails_the_job(
    parts: ServerParts, behaviours: Behaviours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microjobs_orchestrator.local.resources.models.serving.STARTUP_TIMEOUT", 0.2)
    behaviours["predict"].ping = 503
    parts.put("in/a", b"a")
    reason = parts.transform()["FailureReason"]
    assert reason.startswith("AlgorithmError: container container-2: GET /ping did not answer 200 within 0.2 s")
    assert "SAGEMAKER_BIND_TO_PORT" in reason


def test_container_that_ends_fails_the_job(parts: ServerParts, behaviours: Behaviours) -> None:
    def end(_: ReceivedRequest) -> Reply:
        parts.running_hosts[1].end(Exit(9))
        return Reply()

    behaviours["predict"].invoke = end
    parts.put("in/a", b"a")
    job = parts.transform(ModelClientConfig={"InvocationsMaxRetries": 0})
    assert job["TransformJobStatus"] == "Failed"
    assert parts.runtime.hosts == {}


@pytest.mark.usefixtures("behaviours")
def test_mode_direct_is_refused_where_requests_cannot_name_a_container(parts: ServerParts) -> None:
    parts.make_multi_container_model("scale", "predict", name="direct", mode="Direct")
    parts.put("in/a", b"a")
    with pytest.raises(ValidationError, match=r"Batch transform does not support .* Mode Direct, such as direct"):
        parts.start_transform(ModelName="direct")
    with pytest.raises(ValidationError, match=r"AsyncInferenceConfig does not support .* Mode Direct, such as direct"):
        parts.make_config("async", asynchronous=ASYNC_CONFIG, main={"ModelName": "direct"})


# --- models ---


def test_image_without_the_label_is_refused(parts: ServerParts, behaviours: Behaviours) -> None:
    behaviours["predict"].labels = {}
    with pytest.raises(ValidationError, match=r"Image predict does not .*accept-bind-to-port=true Docker label"):
        parts.make_multi_container_model("scale", "predict", name="n")
    parts.make_multi_container_model("predict", name="one")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"Containers": [{"Image": "a"}], "PrimaryContainer": {"Image": "a"}}, "cannot be combined"),
        ({"Containers": []}, "has 1 to 15 containers, not 0"),
        ({"Containers": [{"Image": "a"}, {}]}, "must have an Image"),
        ({"Containers": [{"Image": "a", "ContainerHostname": "a"}, {"Image": "b"}]}, "all containers must have one"),
        ({"Containers": [{"Image": "a", "ContainerHostname": "a"}] * 2}, "ContainerHostnames"),
        ({"Containers": [{"Image": "a"}, {"Image": "b", "ModelDataUrl": "s3://absent/x"}]}, "absent"),
        (
            {"Containers": [{"Image": "a"}, MULTI_MODEL_CONTAINER, {**MULTI_MODEL_CONTAINER, "Image": "c"}]},
            "A model has at most one container with Mode MultiModel, not 2",
        ),
        (
            {
                "Containers": [
                    {"Image": "a", "ContainerHostname": "a"},
                    {**MULTI_MODEL_CONTAINER, "ContainerHostname": "b"},
                ],
                "InferenceExecutionConfig": {"Mode": "Direct"},
            },
            "Mode MultiModel is not supported together with Mode Direct",
        ),
        ({"mode": "Direct", "Containers": [{"Image": "a"}, {"Image": "b"}]}, "a ContainerHostname for each"),
        ({"mode": "Direct", "Containers": [{"Image": "a", "ContainerHostname": "a"}]}, "requires several containers"),
    ],
)
def test_invalid_containers_are_refused(parts: ServerParts, members: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parts.make_multi_container_model(**members)
