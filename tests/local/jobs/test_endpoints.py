"""Endpoints from their creation to their deletion, over containers that do what a test wants."""

import tarfile
import threading
from collections.abc import Callable

import pytest

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle import registry
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.resources.endpoints import endpoint as endpoints
from microjobs_orchestrator.local.resources.models.operations import ModelOperations
from microjobs_orchestrator.local.runtimes.base import Exit, HostPlan, Input, Plan
from tests.local.jobs.conftest import ServerParts, wait_until
from tests.local.jobs.fakes import FakeHost, Model

GROUP = "/aws/sagemaker/Endpoints/e"


@pytest.mark.usefixtures("model")
def test_endpoint_is_described_as_sagemaker_does(parts: ServerParts) -> None:
    found = parts.serve(main={"InitialInstanceCount": 2})
    assert (found["EndpointStatus"], found["EndpointConfigName"], found["EndpointArn"]) == (
        "InService", "c", format_arn("endpoint/e"),
    )  # fmt: skip
    (variant,) = found["ProductionVariants"]
    assert variant["DeployedImages"][0]["SpecifiedImage"] == "model"
    del variant["DeployedImages"]
    assert variant == {
        "VariantName": "main",
        "CurrentWeight": 1.0,
        "DesiredWeight": 1.0,
        "CurrentInstanceCount": 2,
        "DesiredInstanceCount": 2,
    }


def test_container_gets_what_sagemaker_gives(parts: ServerParts, archive: Callable[..., str]) -> None:
    parts.make_model(ModelDataUrl=archive(weights="1 2 3"), Environment={"COLOUR": "blue"})
    parts.serve()
    (host,) = parts.running
    assert host.files == {"weights": b"1 2 3"}
    assert (host.plan.arguments, host.plan.entrypoint, host.plan.port) == (("serve",), None, 8080)
    assert host.plan.environment["COLOUR"] == "blue"
    assert host.plan.environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"


def test_isolated_container_gets_no_access(parts: ServerParts) -> None:
    parts.make_model(isolated=True)
    parts.serve()
    (plan,) = parts.runtime.plans.values()
    assert plan.isolated
    assert plan.hosts[0].environment == {}


@pytest.mark.usefixtures("model")
def test_container_output_is_in_the_endpoints_log(parts: ServerParts) -> None:
    parts.serve()
    ((name, lines),) = wait_until(lambda: [item for item in parts.log(GROUP).items() if item[1]])
    assert name.startswith("main/i-")
    assert lines == ["hello"]


@pytest.mark.parametrize("name", ["../outside", "/absolute"])
def test_archive_that_leaves_its_folder_fails(parts: ServerParts, archive: Callable[..., str], name: str) -> None:
    parts.make_model(ModelDataUrl=archive(tarfile.TarInfo(name)))
    found = parts.serve()
    assert found["EndpointStatus"] == "Failed"
    assert f"s3://bucket/models/model.tar.gz\": model.tar.gz: '{name}' leaves" in found["FailureReason"]
    assert parts.runtime.ever == []


def test_device_in_an_archive_fails(parts: ServerParts, archive: Callable[..., str]) -> None:
    device = tarfile.TarInfo("disk")
    device.type = tarfile.BLKTYPE
    parts.make_model(ModelDataUrl=archive(device))
    assert "'disk' is neither a file nor a folder" in parts.serve()["FailureReason"]


def test_uncompressed_model_is_a_prefix(parts: ServerParts) -> None:
    uri = parts.put("models/a/deep/weights", b"1").removesuffix("deep/weights")
    source = {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}
    parts.make_model(ModelDataSource={"S3DataSource": source})
    parts.serve()
    assert parts.running[0].files == {"weights": b"1"}


def test_single_object_may_be_an_archive_or_a_file(parts: ServerParts, archive: Callable[..., str]) -> None:
    uri = archive(weights="1")
    for number, compression in enumerate(("Gzip", "None")):
        source = {"S3Uri": uri, "S3DataType": "S3Object", "CompressionType": compression}
        parts.make_model(f"m{number}", ModelDataSource={"S3DataSource": source})
    parts.serve(one={"ModelName": "m0"}, two={"ModelName": "m1"})
    assert sorted(list(host.files) for host in parts.running) == [["model.tar.gz"], ["weights"]]


def test_archive_below_a_prefix_is_refused(parts: ServerParts) -> None:
    source = {"S3Uri": "s3://bucket/models/", "S3DataType": "S3Prefix", "CompressionType": "Gzip"}
    with pytest.raises(ValidationError, match="with S3DataType S3Object"):
        parts.make_model(ModelDataSource={"S3DataSource": source})


def test_model_without_its_data_is_refused(parts: ServerParts) -> None:
    with pytest.raises(ValidationError, match=r"Could not find model data at s3://bucket/no\.tar\.gz"):
        parts.make_model(ModelDataUrl="s3://bucket/no.tar.gz")


def test_model_keeps_how_its_container_was_given(parts: ServerParts) -> None:
    containers = [{"Image": "model", "ContainerHostname": "one"}]
    record = ModelOperations(parts.context, parts.registry).add({"ModelName": "m", "Containers": containers})
    assert record.description["Containers"] == containers
    assert "PrimaryContainer" not in record.description
    assert parts.serve()["EndpointStatus"] == "InService"


def test_container_that_ends_fails_the_endpoint_with_its_last_words(parts: ServerParts, model: Model) -> None:
    model.exits = Exit(3)
    found = parts.serve()
    assert found["EndpointStatus"] == "Failed"
    reason = found["FailureReason"]
    assert reason.startswith(
        "The primary container for production variant main did not pass the ping health check. It ended before that. "
        "Exit code: 3. Its last lines: hello Its log: main/i-"
    )
    assert parts.runtime.hosts == {}


def test_container_that_is_never_healthy_fails_the_endpoint(parts: ServerParts, model: Model) -> None:
    model.ping = 503
    found = parts.serve(main={"ContainerStartupHealthCheckTimeoutInSeconds": 0.3})
    assert "GET /ping did not answer 200 within 0.3 s" in found["FailureReason"]
    assert parts.runtime.hosts == {}


def test_missing_image_fails_the_endpoint(parts: ServerParts) -> None:
    parts.make_model(image="elsewhere")
    assert parts.serve()["FailureReason"] == "Production variant main: image elsewhere is not here"


def test_one_variant_that_fails_ends_the_others(parts: ServerParts, model: Model) -> None:
    parts.make_model("bad", "bad")
    parts.runtime.models["bad"] = Model(exits=Exit(1))
    model.ping = 503
    found = parts.serve(main={}, other={"ModelName": "bad"})
    assert "variant other did not pass" in found["FailureReason"]
    assert parts.runtime.hosts == {}


@pytest.mark.usefixtures("model")
def test_container_that_ends_is_started_again(parts: ServerParts) -> None:
    parts.serve()
    parts.running[0].end(Exit(1))
    wait_until(lambda: parts.running and parts.registry.find("endpoint/e").choose().client)  # type: ignore[union-attr]
    assert parts.endpoint()["EndpointStatus"] == "InService"
    (lines,) = parts.log(GROUP).values()
    assert "[microjobs] the container ended by itself and is started again in 1 s. Exit code: 1." in lines[1]


def test_failed_endpoint_can_be_deleted(parts: ServerParts, model: Model) -> None:
    model.exits = Exit(1)
    parts.serve()
    parts.delete()
    wait_until(lambda: parts.context.state.get("endpoint", "e") is None)


@pytest.mark.usefixtures("model")
def test_deletion_gives_the_container_30_seconds(parts: ServerParts) -> None:
    parts.serve()
    (host,) = parts.running
    parts.delete()
    wait_until(lambda: parts.context.state.get("endpoint", "e") is None)
    assert host.graces == [30]
    assert parts.runtime.hosts == {}
    assert list(parts.home.work.iterdir()) == []


def test_deletion_does_not_wait_for_a_start(parts: ServerParts, model: Model) -> None:
    model.ping = 503
    parts.make_config()
    parts.start_endpoint()
    wait_until(lambda: parts.running)
    parts.delete()
    wait_until(lambda: parts.context.state.get("endpoint", "e") is None, seconds=5)
    assert parts.runtime.hosts == {}


@pytest.mark.usefixtures("model")
def test_config_and_model_may_go_while_the_endpoint_lives(parts: ServerParts) -> None:
    parts.serve()
    parts.context.state.delete("endpoint-config", "c")
    parts.context.state.delete("model", "m")
    parts.registry.shut_down()
    second = parts.restarted()
    assert second.settled()["EndpointStatus"] == "InService"
    wait_until(lambda: second.running)
    second.close()


@pytest.mark.usefixtures("model")
def test_what_is_missing_is_named(parts: ServerParts) -> None:
    with pytest.raises(ValidationError, match=f'Could not find model "{format_arn("model/other")}"'):
        parts.make_config(main={"ModelName": "other"})
    with pytest.raises(ValidationError, match=f'Could not find endpoint config "{format_arn("endpoint-config/c")}"'):
        parts.start_endpoint()


@pytest.mark.usefixtures("model")
def test_names_are_taken_once(parts: ServerParts) -> None:
    parts.serve()
    for again in (parts.make_model, parts.make_config, parts.start_endpoint):
        with pytest.raises(ValidationError, match="Cannot create already existing"):
            again()


# --- the server's end and start ---


@pytest.mark.usefixtures("model")
def test_shutdown_ends_containers_and_the_next_server_starts_them(parts: ServerParts) -> None:
    parts.serve()
    (before,) = parts.running
    parts.registry.shut_down()
    assert before.has_ended
    assert parts.runtime.hosts == {}
    assert list(parts.home.work.iterdir()) == []
    assert parts.endpoint()["EndpointStatus"] == "InService"
    second = parts.restarted()
    wait_until(lambda: second.running)
    assert second.settled()["EndpointStatus"] == "InService"
    second.close()


@pytest.mark.usefixtures("model")
def test_containers_of_a_killed_server_are_taken_up(parts: ServerParts) -> None:
    parts.serve()
    (host,) = parts.running
    second = parts.restarted()
    wait_until(lambda: (found := second.registry.find("endpoint/e")) and found.choose())  # type: ignore[attr-defined]
    assert second.running == [host]
    assert len(parts.runtime.ever) == 1
    second.close()


@pytest.mark.usefixtures("model")
def test_update_of_a_killed_server_goes_on(parts: ServerParts) -> None:
    parts.serve()
    parts.make_model("slow", "slow")
    slow = parts.runtime.models["slow"] = Model(ping=503)
    parts.make_config("d", main={"ModelName": "slow"})
    parts.update("d")
    wait_until(lambda: len(parts.running) == 2)
    parts.registry.shut_down()
    slow.ping = 200
    second = parts.restarted()
    assert second.settled()["EndpointConfigName"] == "d"
    wait_until(lambda: [host.plan.image for host in second.running] == ["slow"])
    second.close()


@pytest.mark.usefixtures("model")
def test_what_a_killed_server_left_of_an_update_goes(parts: ServerParts) -> None:
    parts.serve()
    (host,) = parts.running
    left = HostPlan("i-old", "model", host.plan.files, host.plan.inputs)
    parts.runtime.start(Plan("endpoint/e/main/i-old", (left,)))
    second = parts.restarted()
    wait_until(lambda: second.running == [host])
    second.close()


@pytest.mark.usefixtures("model")
def test_deletion_of_a_killed_server_goes_on(parts: ServerParts) -> None:
    parts.make_config()
    request = {"EndpointName": "e", "EndpointConfigName": "c"}
    (variant,) = parts.endpoints.add(request).internal[endpoints.DEPLOYMENT]["Variants"]
    folder = parts.context.new_work_folder("left")
    left = HostPlan(variant["InstanceId"], "model", folder, (Input(str(LAYOUT.model), folder),))
    parts.runtime.start(Plan(f"endpoint/e/main/{variant['InstanceId']}", (left,)))
    parts.context.state.update("endpoint", "e", {"EndpointStatus": "Deleting"}, "Deleting")
    second = parts.restarted()
    wait_until(lambda: parts.context.state.get("endpoint", "e") is None)
    assert parts.runtime.hosts == {}
    second.close()


@pytest.mark.usefixtures("model")
def test_shut_down_removes_containers_that_do_not_end_in_time(
    parts: ServerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(registry, "END_TIMEOUT", 0.3)
    monkeypatch.setattr(FakeHost, "stop", lambda *_: ended.wait(20))
    parts.serve()
    parts.registry.shut_down()
    assert parts.running == []
    ended.set()
