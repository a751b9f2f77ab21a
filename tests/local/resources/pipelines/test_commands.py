"""The commands `ps`, `logs` and `stop` for executions of pipelines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.cli import main
from tests.local.clients import LocalServer, run_server
from tests.local.resources.pipelines.steps import (
    create_pipeline,
    list_statuses,
    list_steps,
    make_processing_step,
    make_training_step,
    start_execution,
    wait_for_end,
)
from tests.polling import wait_until


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    monkeypatch.setenv("MICROJOBS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with run_server(tmp_path / "home", runtime="process") as server:
        yield server


def test_execution_is_listed_logged_and_stopped(server: LocalServer, capsys: pytest.CaptureFixture[str]) -> None:
    first = make_processing_step(server, "First", "echo one")
    second = make_training_step(server, "Second", "echo two; sleep 100", "First")
    arn = start_execution(server, create_pipeline(server, first, second))
    name = arn.rpartition("/")[2]
    wait_until(lambda: list_steps(server, arn), lambda steps: list_statuses(steps).get("Second") == "Executing")
    job = list_steps(server, arn)["Second"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    server.wait_for_log(job, "two")
    assert main(["ps", "--kind", "execution"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["execution", name, "Executing"]
    assert main(["logs", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["one", "two"]
    assert [line.partition("-")[0] for line in lines] == ["First", "Second"]
    assert main(["stop", name]) == 0
    assert capsys.readouterr().out == f"execution {name} is being stopped\n"
    assert wait_for_end(server, arn)["PipelineExecutionStatus"] == "Stopped"
    assert main(["stop", name]) == 0
    assert capsys.readouterr().out == f"execution {name} is Stopped already\n"
    assert main(["ps", "--status", "Stopped", "--kind", "execution"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["execution", name, "Stopped"]
