"""Tests of the operations on MLflow servers. The processes of the servers are fakes."""

from typing import Any

import pytest

from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.mlflow import server
from microjobs_orchestrator.local.resources.mlflow.process import find_version
from tests.local.mlflow.conftest import STORE, FakeMlflow
from tests.polling import wait_until

SERVER_NAME = {"TrackingServerName": "one"}


def get_worker_count(fake_mlflow: FakeMlflow) -> str:
    arguments = list(fake_mlflow.program.arguments)
    return str(arguments[arguments.index("--workers") + 1])


def test_created_server_is_active_and_described(fake_mlflow: FakeMlflow) -> None:
    assert fake_mlflow.create() == "Created"
    description = fake_mlflow.describe()
    assert (description["IsActive"], description["MlflowVersion"]) == ("Active", find_version())
    assert (description["TrackingServerSize"], description["AutomaticModelRegistration"]) == ("Small", False)
    assert description["TrackingServerUrl"].endswith("/_microjobs/mlflow/mlflow-tracking-server/one")
    assert description["CreatedBy"]["IamIdentity"]["Arn"]


@pytest.mark.parametrize(("size", "workers"), [("Small", "1"), ("Medium", "2"), ("Large", "4")])
def test_size_determines_the_number_of_workers(fake_mlflow: FakeMlflow, size: str, workers: str) -> None:
    fake_mlflow.create(TrackingServerSize=size)
    assert get_worker_count(fake_mlflow) == workers


def test_mlflow_process_gets_the_artifact_store_but_no_variables_of_the_local_server(
    fake_mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    fake_mlflow.create()
    assert STORE in fake_mlflow.program.arguments
    assert "--no-serve-artifacts" in fake_mlflow.program.arguments
    assert "AWS_PROFILE" not in fake_mlflow.program.variables
    assert fake_mlflow.program.variables["MLFLOW_S3_ENDPOINT_URL"] == "http://127.0.0.1:1"


def test_server_is_stopped_started_updated_and_deleted(fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.create()
    fake_mlflow.call("StopMlflowTrackingServer", **SERVER_NAME)
    assert fake_mlflow.wait_for_final_status() == "Stopped"
    assert (fake_mlflow.describe()["IsActive"], fake_mlflow.program.exit_code) == ("Inactive", 0)
    fake_mlflow.call("StartMlflowTrackingServer", **SERVER_NAME)
    assert fake_mlflow.wait_for_final_status() == "Started"
    fake_mlflow.call("UpdateMlflowTrackingServer", **SERVER_NAME, TrackingServerSize="Medium")
    assert fake_mlflow.wait_for_final_status() == "Updated"
    assert (get_worker_count(fake_mlflow), fake_mlflow.describe()["TrackingServerSize"]) == ("2", "Medium")
    assert [program.exit_code for program in fake_mlflow.programs.started_programs] == [0, 0, None]
    folder = fake_mlflow.home.mlflow / "mlflow-tracking-server" / "one"
    assert folder.is_dir()
    fake_mlflow.call("DeleteMlflowTrackingServer", **SERVER_NAME)
    wait_until(lambda: fake_mlflow.parts.context.state.get("mlflow-tracking-server", "one") is None)
    assert (fake_mlflow.program.exit_code, folder.exists()) == (0, False)


def test_data_that_could_not_be_deleted_is_removed_at_the_next_start(
    fake_mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_mlflow.create()
    fake_mlflow.create("two")
    folders = fake_mlflow.home.mlflow / "mlflow-tracking-server"
    (folders / "one" / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr(server, "discard", lambda _: None)  # as if the file system refused the removal
        fake_mlflow.call("DeleteMlflowTrackingServer", **SERVER_NAME)
        wait_until(lambda: fake_mlflow.parts.context.state.get("mlflow-tracking-server", "one") is None)
    fake_mlflow.parts.registry.wait_for_end("mlflow-tracking-server/one")
    assert [path.name for path in folders.iterdir()] == ["two"]  # a new server `one` does not find the data
    assert len(list(fake_mlflow.home.work.rglob("file"))) == 1
    next_mlflow = fake_mlflow.restart()
    assert list(fake_mlflow.home.work.rglob("file")) == []
    assert [path.name for path in folders.iterdir()] == ["two"]
    next_mlflow.close()


def test_stopped_server_is_deleted(fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.create()
    fake_mlflow.call("StopMlflowTrackingServer", **SERVER_NAME)
    fake_mlflow.wait_for_final_status()
    fake_mlflow.parts.registry.wait_for_end("mlflow-tracking-server/one")
    fake_mlflow.call("DeleteMlflowTrackingServer", **SERVER_NAME)
    with pytest.raises(ServiceError, match="Could not find"):
        fake_mlflow.describe()


@pytest.mark.parametrize("operation", ["StartMlflowTrackingServer", "StopMlflowTrackingServer"])
def test_request_that_the_status_does_not_allow_is_a_conflict(fake_mlflow: FakeMlflow, operation: str) -> None:
    fake_mlflow.create()
    if operation.startswith("Stop"):
        fake_mlflow.call(operation, **SERVER_NAME)
        fake_mlflow.wait_for_final_status()
    with pytest.raises(ServiceError, match=r"is in status (Created|Stopped)") as error:
        fake_mlflow.call(operation, **SERVER_NAME)
    assert error.value.code == "ConflictException"


def test_failed_installation_is_reported_and_can_be_repeated(fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.programs.error = "the environment cannot be created: no index"
    assert fake_mlflow.create() == "CreateFailed"
    assert "no index" in fake_mlflow.read_failure_reason()
    fake_mlflow.programs.error = ""
    fake_mlflow.call("StartMlflowTrackingServer", **SERVER_NAME)
    assert fake_mlflow.wait_for_final_status() == "Started"
    assert fake_mlflow.read_failure_reason() == "None"


def test_server_whose_process_ends_fails_with_the_last_lines(fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.create()
    fake_mlflow.program.end(3)
    wait_until(lambda: fake_mlflow.describe()["TrackingServerStatus"] == "StartFailed")
    assert fake_mlflow.read_failure_reason() == "`mlflow server` ended with exit code 3: started"


def test_output_of_the_process_is_in_its_log_stream(fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.create()
    logs = fake_mlflow.parts.context.logs
    wait_until(lambda: "mlflow" in logs.streams("/aws/sagemaker/MlflowTrackingServers/one"))
    stream = logs.stream("/aws/sagemaker/MlflowTrackingServers/one", "mlflow")
    assert stream is not None
    wait_until(lambda: [event.message for event in stream.events()] == ["started"])


def test_restarted_local_server_starts_only_active_mlflow_servers(fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.create("active")
    fake_mlflow.create("stopped")
    fake_mlflow.call("StopMlflowTrackingServer", TrackingServerName="stopped")
    fake_mlflow.wait_for_final_status("stopped")
    next_server = fake_mlflow.restart()
    wait_until(lambda: next_server.describe("active")["IsActive"] == "Active")
    assert [next_server.describe(name)["TrackingServerStatus"] for name in ("active", "stopped")] == [
        "Created",
        "Stopped",
    ]
    assert len(next_server.programs.started_programs) == 1
    next_server.close()


def test_shutdown_ends_the_process_and_keeps_the_status(fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.create()
    fake_mlflow.parts.registry.shut_down()
    assert (fake_mlflow.program.exit_code, fake_mlflow.describe()["TrackingServerStatus"]) == (0, "Created")


def test_list_filters_sorts_and_cuts_pages(fake_mlflow: FakeMlflow) -> None:
    for name in ("b", "a", "c"):
        fake_mlflow.create(name)
    fake_mlflow.call("StopMlflowTrackingServer", TrackingServerName="b")
    fake_mlflow.wait_for_final_status("b")

    def list_names(**members: object) -> list[str]:
        summaries = fake_mlflow.call("ListMlflowTrackingServers", **members)["TrackingServerSummaries"]
        return [item["TrackingServerName"] for item in summaries]

    assert list_names() == ["c", "a", "b"]
    assert list_names(SortBy="Name", SortOrder="Ascending", MaxResults=2) == ["a", "b"]
    assert list_names(SortBy="Status", SortOrder="Ascending") == ["a", "c", "b"]
    assert list_names(TrackingServerStatus="Stopped") == ["b"]
    assert list_names(MlflowVersion="0.1.0") == []
    assert list_names(MlflowVersion=find_version(), SortBy="Name") == ["c", "b", "a"]
    record = fake_mlflow.parts.context.state.get("mlflow-tracking-server", "a")
    assert record is not None
    assert list_names(CreatedAfter=record.created, SortBy="Name") == ["c", "a"]
    assert list_names(CreatedBefore=record.created, SortBy="Name") == ["b", "a"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"ArtifactStoreUri": "s3://absent/x"}, "absent"),
        ({"ArtifactStoreUri": "https://example.com/x"}, "is not an S3 URI"),
        ({"S3BucketOwnerVerification": True, "S3BucketOwnerAccountId": "1" * 12}, "belongs to account 0"),
    ],
)
def test_invalid_store_is_refused(fake_mlflow: FakeMlflow, members: dict[str, Any], message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        fake_mlflow.create(**members)


def test_account_has_one_default_app(fake_mlflow: FakeMlflow) -> None:
    first_arn, second_arn = (
        fake_mlflow.create_app("first", AccountDefaultStatus="ENABLED"),
        fake_mlflow.create_app("second"),
    )
    fake_mlflow.call("UpdateMlflowApp", Arn=second_arn, AccountDefaultStatus="ENABLED")
    wait_until(lambda: fake_mlflow.call("DescribeMlflowApp", Arn=second_arn)["Status"] == "Updated")
    defaults = fake_mlflow.call("ListMlflowApps", AccountDefaultStatus="ENABLED")["Summaries"]
    assert [item["Name"] for item in defaults] == ["second"]
    assert fake_mlflow.call("DescribeMlflowApp", Arn=first_arn)["AccountDefaultStatus"] == "DISABLED"


def test_data_of_a_server_and_of_an_app_with_the_same_name_are_separate(fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.create("same")
    arn = fake_mlflow.create_app("same")
    fake_mlflow.call("DeleteMlflowApp", Arn=arn)
    wait_until(lambda: not (fake_mlflow.home.mlflow / "mlflow-app" / "same").exists())
    assert (fake_mlflow.home.mlflow / "mlflow-tracking-server" / "same").is_dir()
    assert fake_mlflow.describe("same")["IsActive"] == "Active"


def test_address_of_an_inactive_server_is_refused(fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.programs.error = "no index"
    fake_mlflow.create()
    with pytest.raises(ServiceError, match=r"its status is CreateFailed, because no index"):
        fake_mlflow.call("CreatePresignedMlflowTrackingServerUrl", **SERVER_NAME)


def test_stop_command_deletes_no_app(
    fake_mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arn = fake_mlflow.create_app()
    monkeypatch.setenv("MICROJOBS_HOME", str(fake_mlflow.home.root))
    assert main(["stop", "app"]) == 2
    assert "its deletion would delete its data" in capsys.readouterr().err
    assert fake_mlflow.call("DescribeMlflowApp", Arn=arn)["Status"] == "Created"


def test_logs_command_prints_the_reason_of_a_failure(
    fake_mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_mlflow.programs.error = "no index"
    fake_mlflow.create()
    monkeypatch.setenv("MICROJOBS_HOME", str(fake_mlflow.home.root))
    main(["logs", "one"])
    output = capsys.readouterr()
    assert "MLflow server one is CreateFailed: no index" in output.out + output.err
