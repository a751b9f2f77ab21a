"""Endpoints from their creation to their deletion, with containers whose behaviour the tests define."""

import tarfile
import threading
from collections.abc import Callable
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle import registry
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.resources.endpoints import deployer
from microjobs_orchestrator.local.resources.models.operations import ModelOperations
from microjobs_orchestrator.local.resources.models.serving import ADDITIONAL_DATA_FOLDER
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, HostPlan, Input, Plan
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeHost, ImageBehaviour
from tests.polling import wait_until

LOG_GROUP = "/aws/sagemaker/Endpoints/e"


@pytest.mark.usefixtures("model")
def test_describe_returns_members_of_sagemaker(parts: ServerParts) -> None:
    description = parts.deploy(main={"InitialInstanceCount": 2})
    assert (description["EndpointStatus"], description["EndpointConfigName"], description["EndpointArn"]) == (
        "InService", "c", format_arn("endpoint/e"),
    )  # fmt: skip
    (variant,) = description["ProductionVariants"]
    assert variant["DeployedImages"][0]["SpecifiedImage"] == "model"
    del variant["DeployedImages"]
    assert variant == {
        "VariantName": "main",
        "CurrentWeight": 1.0,
        "DesiredWeight": 1.0,
        "CurrentInstanceCount": 2,
        "DesiredInstanceCount": 2,
    }


def test_container_has_files_and_environment_of_sagemaker(parts: ServerParts, put_archive: Callable[..., str]) -> None:
    parts.make_model(ModelDataUrl=put_archive(weights="1 2 3"), Environment={"COLOUR": "blue"})
    parts.deploy()
    (host,) = parts.running_hosts
    assert host.files == {"weights": b"1 2 3"}
    assert (host.plan.arguments, host.plan.entrypoint, host.plan.port) == (("serve",), None, 8080)
    assert host.plan.environment["COLOUR"] == "blue"
    assert host.plan.environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert "PIP_INDEX_URL" in host.plan.default_variables


def test_isolated_container_has_no_credentials(parts: ServerParts) -> None:
    parts.make_model(isolated=True)
    parts.deploy()
    (plan,) = parts.runtime.plans.values()
    assert plan.isolated
    assert plan.hosts[0].environment == plan.hosts[0].default_variables == {}


@pytest.mark.usefixtures("model")
def test_container_output_is_in_the_endpoints_log(parts: ServerParts) -> None:
    parts.deploy()
    ((name, lines),) = wait_until(lambda: [item for item in parts.read_log(LOG_GROUP).items() if item[1]])
    assert name.startswith("main/i-")
    assert lines == ["hello"]


@pytest.mark.parametrize("name", ["../outside", "/absolute"])
def test_archive_member_outside_the_folder_fails_the_endpoint(
    parts: ServerParts, put_archive: Callable[..., str], name: str
) -> None:
    parts.make_model(ModelDataUrl=put_archive(tarfile.TarInfo(name)))
    description = parts.deploy()
    assert description["EndpointStatus"] == "Failed"
    assert f"s3://bucket/models/model.tar.gz\": model.tar.gz: '{name}' leaves" in description["FailureReason"]
    assert parts.runtime.started_hosts == []


def test_device_in_an_archive_fails_the_endpoint(parts: ServerParts, put_archive: Callable[..., str]) -> None:
    device = tarfile.TarInfo("disk")
    device.type = tarfile.BLKTYPE
    parts.make_model(ModelDataUrl=put_archive(device))
    assert "'disk' is not a file, a folder or a link" in parts.deploy()["FailureReason"]


def test_uncompressed_model_is_read_from_a_prefix(parts: ServerParts) -> None:
    uri = parts.put("models/a/deep/weights", b"1").removesuffix("deep/weights")
    source = {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}
    parts.make_model(ModelDataSource={"S3DataSource": source})
    parts.deploy()
    assert parts.running_hosts[0].files == {"weights": b"1"}


def test_single_object_may_be_an_archive_or_a_file(parts: ServerParts, put_archive: Callable[..., str]) -> None:
    uri = put_archive(weights="1")
    for number, compression in enumerate(("Gzip", "None")):
        source = {"S3Uri": uri, "S3DataType": "S3Object", "CompressionType": compression}
        parts.make_model(f"m{number}", ModelDataSource={"S3DataSource": source})
    parts.deploy(one={"ModelName": "m0"}, two={"ModelName": "m1"})
    assert sorted(list(host.files) for host in parts.running_hosts) == [["model.tar.gz"], ["weights"]]


def make_additional_data(name: str, uri: str, compression: str = "Gzip") -> dict[str, Any]:
    data_type = "S3Object" if compression == "Gzip" else "S3Prefix"
    source = {"S3Uri": uri, "S3DataType": data_type, "CompressionType": compression}
    return {"ChannelName": name, "S3DataSource": source}


def test_each_additional_model_data_source_has_its_own_folder(
    parts: ServerParts, put_archive: Callable[..., str]
) -> None:
    uri = parts.put("words/deep/list.txt", b"1").removesuffix("deep/list.txt")
    sources = [make_additional_data("draft", put_archive(weights="1")), make_additional_data("words", uri, "None")]
    parts.make_model(AdditionalModelDataSources=sources)
    parts.deploy()
    (host,) = parts.running_hosts
    files = {
        item.path: sorted(str(path.relative_to(item.source)) for path in item.source.rglob("*") if path.is_file())
        for item in host.plan.inputs
    }
    assert files == {
        str(LAYOUT.model): [],
        f"{ADDITIONAL_DATA_FOLDER}/draft": ["weights"],
        f"{ADDITIONAL_DATA_FOLDER}/words": ["deep/list.txt"],
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "ChannelNames"),
        ([".."], r"ChannelName \.\. cannot be the name of a folder"),
        (["a"], r"Could not find model data at s3://bucket/no\.tar\.gz"),
    ],
)
def test_invalid_additional_model_data_are_refused(parts: ServerParts, names: list[str], message: str) -> None:
    sources = [make_additional_data(name, "s3://bucket/no.tar.gz") for name in names]
    with pytest.raises(ValidationError, match=message):
        parts.make_model(AdditionalModelDataSources=sources)


def test_archive_below_a_prefix_is_refused(parts: ServerParts) -> None:
    source = {"S3Uri": "s3://bucket/models/", "S3DataType": "S3Prefix", "CompressionType": "Gzip"}
    with pytest.raises(ValidationError, match="set S3Uri to an archive and S3DataType to S3Object"):
        parts.make_model(ModelDataSource={"S3DataSource": source})


def test_missing_model_data_is_refused(parts: ServerParts) -> None:
    with pytest.raises(ValidationError, match=r"Could not find model data at s3://bucket/no\.tar\.gz"):
        parts.make_model(ModelDataUrl="s3://bucket/no.tar.gz")


def test_describe_returns_containers_of_the_request(parts: ServerParts) -> None:
    containers = [{"Image": "model", "ContainerHostname": "one"}]
    record = ModelOperations(parts.context, parts.registry).add({"ModelName": "m", "Containers": containers})
    assert record.description["Containers"] == containers
    assert "PrimaryContainer" not in record.description
    assert parts.deploy()["EndpointStatus"] == "InService"


def test_failure_reason_has_last_lines_of_ended_container(parts: ServerParts, model: ImageBehaviour) -> None:
    model.exit_at_start = Exit(3)
    description = parts.deploy()
    assert description["EndpointStatus"] == "Failed"
    reason = description["FailureReason"]
    assert reason.startswith(
        "The primary container for production variant main did not pass the ping health check. "
        "The container ended before GET /ping answered 200. "
        "Exit code: 3. Its last lines: hello Its log: main/i-"
    )
    assert parts.runtime.hosts == {}


@pytest.mark.parametrize("ping", [503, None])
def test_unhealthy_container_fails_the_endpoint(parts: ServerParts, model: ImageBehaviour, ping: int | None) -> None:
    model.ping = ping
    description = parts.deploy(main={"ContainerStartupHealthCheckTimeoutInSeconds": 0.3})
    assert "GET /ping did not answer 200 within 0.3 s" in description["FailureReason"]
    assert parts.runtime.hosts == {}


def test_slow_extraction_fails_the_endpoint(parts: ServerParts, put_archive: Callable[..., str]) -> None:
    parts.make_model(ModelDataUrl=put_archive(weights="1"))
    description = parts.deploy(main={"ModelDataDownloadTimeoutInSeconds": 0})
    assert description["EndpointStatus"] == "Failed"
    assert "to extract, longer than 0 s (ModelDataDownloadTimeoutInSeconds)" in description["FailureReason"]
    assert parts.runtime.started_hosts == []


def test_missing_image_fails_the_endpoint(parts: ServerParts) -> None:
    parts.make_model(image="elsewhere")
    assert parts.deploy()["FailureReason"] == "Production variant main: image elsewhere does not exist"


def test_failed_variant_ends_other_variants(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.make_model("bad", "bad")
    parts.runtime.behaviours["bad"] = ImageBehaviour(exit_at_start=Exit(1))
    model.ping = 503
    description = parts.deploy(main={}, other={"ModelName": "bad"})
    assert "variant other did not pass" in description["FailureReason"]
    assert parts.runtime.hosts == {}


@pytest.mark.usefixtures("model")
def test_ended_container_is_restarted(parts: ServerParts) -> None:
    parts.deploy()
    parts.running_hosts[0].end(Exit(1))
    wait_until(lambda: parts.running_hosts and parts.registry.find("endpoint/e").choose_replica().start_count == 2)  # type: ignore[union-attr]
    assert parts.describe_endpoint()["EndpointStatus"] == "InService"
    (lines,) = parts.read_log(LOG_GROUP).values()
    assert "[microjobs] the container ended by itself and is started again in 1 s. Exit code: 1." in lines[1]


def test_failed_endpoint_can_be_deleted(parts: ServerParts, model: ImageBehaviour) -> None:
    model.exit_at_start = Exit(1)
    parts.deploy()
    parts.delete_endpoint()
    wait_until(lambda: parts.context.state.get("endpoint", "e") is None)


@pytest.mark.usefixtures("model")
def test_deletion_gives_the_container_30_seconds(parts: ServerParts) -> None:
    parts.deploy()
    (host,) = parts.running_hosts
    parts.delete_endpoint()
    wait_until(lambda: parts.context.state.get("endpoint", "e") is None)
    assert host.graces == [30]
    assert parts.runtime.hosts == {}
    assert list(parts.home.work.iterdir()) == []


def test_deletion_does_not_wait_for_a_start(parts: ServerParts, model: ImageBehaviour) -> None:
    model.ping = 503
    parts.make_config()
    parts.start_endpoint()
    wait_until(lambda: parts.running_hosts)
    parts.delete_endpoint()
    wait_until(lambda: parts.context.state.get("endpoint", "e") is None)
    assert parts.runtime.hosts == {}


@pytest.mark.usefixtures("model")
def test_endpoint_survives_deletion_of_config_and_model(parts: ServerParts) -> None:
    parts.deploy()
    parts.context.state.delete("endpoint-config", "c")
    parts.context.state.delete("model", "m")
    parts.registry.shut_down()
    restarted_parts = parts.restart()
    assert restarted_parts.wait_for_endpoint()["EndpointStatus"] == "InService"
    wait_until(lambda: restarted_parts.running_hosts)
    restarted_parts.close()


@pytest.mark.usefixtures("model")
def test_error_names_missing_resource(parts: ServerParts) -> None:
    with pytest.raises(ValidationError, match=f'Could not find model "{format_arn("model/other")}"'):
        parts.make_config(main={"ModelName": "other"})
    arn = format_arn("endpoint-config/c")
    with pytest.raises(ValidationError, match=f'Could not find endpoint configuration "{arn}"'):
        parts.start_endpoint()


@pytest.mark.usefixtures("model")
def test_duplicate_name_is_refused(parts: ServerParts) -> None:
    parts.deploy()
    for create in (parts.make_model, parts.make_config, parts.start_endpoint):
        with pytest.raises(ValidationError, match="Cannot create already existing"):
            create()


# --- restarts of the server ---


@pytest.mark.usefixtures("model")
def test_restarted_server_starts_containers_after_shutdown(parts: ServerParts) -> None:
    parts.deploy()
    (host,) = parts.running_hosts
    parts.registry.shut_down()
    assert host.has_ended
    assert parts.runtime.hosts == {}
    assert list(parts.home.work.iterdir()) == []
    assert parts.describe_endpoint()["EndpointStatus"] == "InService"
    restarted_parts = parts.restart()
    wait_until(lambda: restarted_parts.running_hosts)
    assert restarted_parts.wait_for_endpoint()["EndpointStatus"] == "InService"
    restarted_parts.close()


@pytest.mark.usefixtures("model")
def test_restarted_server_starts_an_endpoint_whose_installation_was_cancelled(
    parts: ServerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    installing, cancelled = threading.Event(), threading.Event()

    def prepare(*_: object) -> None:
        installing.set()
        assert cancelled.wait(10)
        raise CannotRunError("the environment cannot be made")

    with monkeypatch.context() as patch:
        patch.setattr(parts.runtime, "prepare", prepare)
        patch.setattr(parts.runtime, "cancel_installations", cancelled.set)
        parts.make_config()
        parts.start_endpoint()
        assert installing.wait(10)
        parts.registry.shut_down()
    assert parts.describe_endpoint()["EndpointStatus"] == "Creating"
    restarted_parts = parts.restart()
    assert restarted_parts.wait_for_endpoint()["EndpointStatus"] == "InService"
    restarted_parts.close()


@pytest.mark.usefixtures("model")
def test_restarted_server_adopts_running_containers(parts: ServerParts) -> None:
    parts.deploy()
    (host,) = parts.running_hosts
    restarted_parts = parts.restart()
    wait_until(lambda: (endpoint := restarted_parts.registry.find("endpoint/e")) and endpoint.choose_replica())  # type: ignore[attr-defined]
    assert restarted_parts.running_hosts == [host]
    assert len(parts.runtime.started_hosts) == 1
    restarted_parts.close()


@pytest.mark.usefixtures("model")
def test_restarted_server_resumes_an_update(parts: ServerParts) -> None:
    parts.deploy()
    parts.make_model("slow", "slow")
    slow_model = parts.runtime.behaviours["slow"] = ImageBehaviour(ping=503)
    parts.make_config("d", main={"ModelName": "slow"})
    parts.update_endpoint("d")
    wait_until(lambda: len(parts.running_hosts) == 2)
    parts.registry.shut_down()
    slow_model.ping = 200
    restarted_parts = parts.restart()
    assert restarted_parts.wait_for_endpoint()["EndpointConfigName"] == "d"
    wait_until(lambda: [host.plan.image for host in restarted_parts.running_hosts] == ["slow"])
    restarted_parts.close()


@pytest.mark.usefixtures("model")
def test_restarted_server_removes_hosts_of_an_interrupted_update(parts: ServerParts) -> None:
    parts.deploy()
    (host,) = parts.running_hosts
    leftover = HostPlan("i-old", "model", host.plan.files, host.plan.inputs)
    parts.runtime.start(Plan("endpoint/e/main/i-old", (leftover,)))
    restarted_parts = parts.restart()
    wait_until(lambda: restarted_parts.running_hosts == [host])
    restarted_parts.close()


@pytest.mark.usefixtures("model")
def test_restarted_server_resumes_a_deletion(parts: ServerParts) -> None:
    parts.make_config()
    request = {"EndpointName": "e", "EndpointConfigName": "c"}
    (variant,) = parts.endpoints.add(request).internal[deployer.DEPLOYMENT]["Variants"]
    folder = parts.context.make_work_folder("left")
    leftover = HostPlan(variant["InstanceId"], "model", folder, (Input(str(LAYOUT.model), folder),))
    parts.runtime.start(Plan(f"endpoint/e/main/{variant['InstanceId']}", (leftover,)))
    parts.context.state.update("endpoint", "e", {"EndpointStatus": "Deleting"}, "Deleting")
    restarted_parts = parts.restart()
    wait_until(lambda: parts.context.state.get("endpoint", "e") is None)
    assert parts.runtime.hosts == {}
    restarted_parts.close()


@pytest.mark.usefixtures("model")
def test_shut_down_removes_containers_that_do_not_end_in_time(
    parts: ServerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(registry, "END_TIMEOUT", 0.3)
    monkeypatch.setattr(FakeHost, "stop", lambda *_: ended.wait(20))
    parts.deploy()
    parts.registry.shut_down()
    assert parts.running_hosts == []
    ended.set()
