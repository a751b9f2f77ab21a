"""Tests of commands for pipeline executions, on a real server."""

import uuid

import pytest

from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local.home import HOME_VARIABLE
from tests.local.clients import LocalServer
from tests.local.conftest import process_server as process_server
from tests.local.resources.pipelines.steps import create_pipeline, make_processing_step, wait_for_end


@pytest.fixture
def execution_arn(process_server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ARN of a pipeline execution that belongs to the run `PIPELINE-20261129-1`. Its second step takes 100 s."""
    monkeypatch.setenv(HOME_VARIABLE, str(process_server.home.root))
    first_step = make_processing_step(process_server, "First")
    second_step = make_processing_step(process_server, "Second", "sleep 100", "First")
    parameter = {"Name": "RunName", "Type": "String"}
    name = create_pipeline(process_server, first_step, second_step, Parameters=[parameter])
    response = process_server.sagemaker.start_pipeline_execution(
        PipelineName=name,
        PipelineParameters=[{"Name": "RunName", "Value": f"{name}-20261129-1"}],
        ClientRequestToken=uuid.uuid4().hex,
    )
    return str(response["PipelineExecutionArn"])


def split_arn(arn: str) -> tuple[str, str]:
    """Return the names of the pipeline and of the execution."""
    parts = arn.split("/")
    return parts[1], parts[3]


def test_stop_ends_an_execution_and_its_job(
    process_server: LocalServer, execution_arn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, name = split_arn(execution_arn)
    assert main(["stop", name]) == 0
    assert capsys.readouterr().out == f"execution {name} is being stopped\n"
    assert wait_for_end(process_server, execution_arn)["PipelineExecutionStatus"] == "Stopped"
    assert main(["stop", name]) == 0
    assert capsys.readouterr().out == f"execution {name} is Stopped already\n"


def test_stop_of_a_run_ends_its_execution(
    process_server: LocalServer, execution_arn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, name = split_arn(execution_arn)
    assert main(["stop", "--run", f"{pipeline}-20261129-2"]) == 0
    assert "no job or endpoint" in capsys.readouterr().out
    assert main(["stop", "--run", f"{pipeline}-20261129-1"]) == 0
    assert f"stopping pipeline execution {name}" in capsys.readouterr().out
    assert wait_for_end(process_server, execution_arn)["PipelineExecutionStatus"] == "Stopped"


def test_show_prints_the_steps_of_the_newest_execution(
    process_server: LocalServer, execution_arn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, name = split_arn(execution_arn)
    assert main(["stop", name]) == 0
    wait_for_end(process_server, execution_arn)
    capsys.readouterr()
    assert main(["pipeline", "show", pipeline]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == f"{pipeline}  {name}  Stopped"
    assert [row.split()[1] for row in rows] == ["First", "Second"]
    assert main(["pipeline", "show", execution_arn]) == 0
    assert capsys.readouterr().out.startswith(head)
