"""Tests that failures, Ctrl-C and `microjobs stop` leave nothing running that costs money, unless the user keeps it.
Also tests the costs in the journal.

AWS refuses to delete an endpoint during its creation, so a run repeats the request until the endpoint is deleted.
"""

import io
import os
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from rich.console import Console

from microjobs_orchestrator.failures import CommandError, JobFailedError
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.runs import run as run_module
from microjobs_orchestrator.runs import steps, stopping
from microjobs_orchestrator.runs.journal import Journal
from microjobs_orchestrator.runs.progress import Progress
from microjobs_orchestrator.runs.run import Run
from microjobs_orchestrator.workflows import housing
from tests.launcher.cloud import START, Cloud

WITHOUT_TUNING = housing.Options(tuning=False)


class Aws(Cloud):
    """A cloud that refuses to delete an endpoint during its creation, as AWS does.

    An endpoint is being created until DescribeEndpoint has been called `creation_calls` times.
    """

    def __init__(self, creation_calls: int = 4) -> None:
        super().__init__()
        self.creation_calls = creation_calls

    def _advance(self, noun: str, name: str, resource: dict[str, Any]) -> None:
        resource["describe_calls"] = resource.get("describe_calls", 0) + 1
        if noun != "Endpoint" or resource["describe_calls"] >= self.creation_calls:
            super()._advance(noun, name, resource)
            prefix = noun.removesuffix("Job")
            resource |= {f"{prefix}StartTime": START, f"{prefix}EndTime": START + timedelta(seconds=10)}

    def _delete(self, noun: str, name: str, members: dict[str, Any]) -> dict[str, Any]:
        if noun == "Endpoint" and self._get_resource(noun, name)["EndpointStatus"] == "Creating":
            raise ServiceError("ValidationException", f'Cannot update in-progress endpoint "{name}".')
        return super()._delete(noun, name, members)

    def list_running_resources(self) -> list[tuple[str, str]]:
        """Return the unfinished jobs, and all endpoints, endpoint configurations and models."""
        hosting_nouns = ("Endpoint", "EndpointConfig", "Model")
        return [
            key
            for key, resource in self.resources.items()
            if key[0] in hosting_nouns or "InProgress" in resource.values()
        ]


@pytest.fixture
def aws() -> Aws:
    return Aws()


def make_run(
    aws: Cloud,
    folder: Path,
    screen: io.StringIO,
    *,
    keep: bool = False,
    journal: Journal | None = None,
    **backend_fields: Any,
) -> Run:
    """Return a new run, or a resumed run if there is a journal.

    A resumed run deletes the endpoint that its journal names."""
    backend = replace(aws.make_backend(), **{"find_price": {"ml.m5.large": 3600.0}.get, **backend_fields})
    journal = journal or Journal.new(folder / "runs", "housing", {}, on="aws")
    return Run(backend, journal, Progress(Console(file=screen, width=200)), keep=keep)


def press_ctrl_c_at(step: str) -> Any:
    def on_describe(name: str) -> None:
        if name.endswith(step):
            os.kill(os.getpid(), signal.SIGINT)

    return on_describe


def interrupt_run(run: Run, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run.interrupts.handle_signals():
        housing.run_housing(run, WITHOUT_TUNING, folder)


@pytest.mark.parametrize("step", ["raw", "train", "endpoint"])
def test_ctrl_c_leaves_nothing_running(aws: Aws, tmp_path: Path, screen: io.StringIO, step: str) -> None:
    aws.on_describe = press_ctrl_c_at(step)
    interrupt_run(make_run(aws, tmp_path, screen), tmp_path)
    assert any(name.endswith(step) for _, name in aws.resources) or step == "endpoint"
    assert aws.list_running_resources() == []


def test_endpoint_in_creation_is_deleted_afterwards(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.on_describe = press_ctrl_c_at("endpoint")
    run = make_run(aws, tmp_path, screen)
    interrupt_run(run, tmp_path)
    assert len(aws.find_requests("DeleteEndpoint")) > 1  # AWS refused the first request, so the run repeated it
    assert f"deleting endpoint {run.id}-endpoint, which is Creating" in screen.getvalue()
    assert run.journal.endpoint is None


def test_failed_endpoint_is_deleted(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.failure_reasons["endpoint"] = "no /ping"
    run = make_run(aws, tmp_path, screen)
    with pytest.raises(JobFailedError, match="is Failed: no /ping"):
        housing.run_housing(run, WITHOUT_TUNING, tmp_path)
    assert aws.list_running_resources() == []


def test_endpoint_that_takes_too_long_fails_and_is_deleted(tmp_path: Path, screen: io.StringIO) -> None:
    aws = Aws(creation_calls=30)
    run = make_run(aws, tmp_path, screen, max_seconds=0)
    with (
        pytest.raises(JobFailedError, match="not in service within 0 s"),
        run.create_temporary_endpoint(steps.plan_endpoint(run, "s3://bucket/model.tar.gz")),
    ):
        pytest.fail("the endpoint is not in service")
    assert aws.list_running_resources() == []


def test_failed_deletion_does_not_hide_the_first_error(
    aws: Aws, tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_connection_error(*_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://aws")

    monkeypatch.setattr(run_module, "delete_endpoint", raise_connection_error)
    aws.failure_reasons["endpoint"] = "no /ping"
    run = make_run(aws, tmp_path, screen)
    with pytest.raises(JobFailedError, match="no /ping"):
        housing.run_housing(run, WITHOUT_TUNING, tmp_path)
    assert f"`microjobs stop {run.id}-endpoint --on aws`" in screen.getvalue()
    assert Journal.read(run.journal.path).endpoint == f"{run.id}-endpoint"


def test_undeletable_endpoint_raises(
    aws: Aws, tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "DELETE_TIMEOUT", 0.01)
    aws.resources["Endpoint", "stuck"] = {
        "EndpointName": "stuck",
        "EndpointStatus": "Creating",
        "describe_calls": -9999,  # the endpoint remains Creating during all calls of this test
    }
    with pytest.raises(CommandError, match="endpoint stuck is Creating and was not deleted"):
        stopping.delete_endpoint(make_run(aws, tmp_path, screen).backend, "stuck", print)


def test_output_names_a_kept_endpoint(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.on_describe = press_ctrl_c_at("endpoint")
    run = make_run(aws, tmp_path, screen, keep=True)
    interrupt_run(run, tmp_path)
    assert ("Endpoint", f"{run.id}-endpoint") in aws.list_running_resources()
    assert (
        f"{run.id}-endpoint is kept, and may cost money until it ends: run `microjobs stop {run.id}-endpoint --on aws`"
        in screen.getvalue()
    )
    assert aws.find_requests("StopTrainingJob") == []


def test_kept_job_continues(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.hanging_steps.add("train")
    aws.on_describe = press_ctrl_c_at("train")
    run = make_run(aws, tmp_path, screen, keep=True)
    interrupt_run(run, tmp_path)
    assert aws.list_running_resources() == [("TrainingJob", f"{run.id}-train")]
    assert (
        f"{run.id}-train is kept, and may cost money until it ends: run `microjobs stop {run.id}-train --on aws`"
        in screen.getvalue()
    )


def test_next_attempt_deletes_a_kept_endpoint(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.on_describe = press_ctrl_c_at("endpoint")
    run = make_run(aws, tmp_path, screen, keep=True)
    interrupt_run(run, tmp_path)
    aws.on_describe = lambda _name: None
    make_run(aws, tmp_path, screen, journal=Journal.read(run.journal.path))
    assert aws.list_running_resources() == []


def test_stop_run_stops_jobs_and_deletes_the_endpoint(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    for noun, name in [("TrainingJob", "run-1-train"), ("ProcessingJob", "run-1-raw"), ("TrainingJob", "run-10-train")]:
        aws.resources[noun, name] = {f"{noun}Name": name, f"{noun}Status": "InProgress"}
    for noun in ("Endpoint", "EndpointConfig", "Model"):
        aws.resources[noun, "run-1-endpoint"] = {f"{noun}Name": "run-1-endpoint", "EndpointStatus": "Creating"}
    output: list[str] = []
    assert stopping.stop_run(make_run(aws, tmp_path, screen).backend, "run-1", output.append) == 3
    assert aws.list_running_resources() == [("TrainingJob", "run-10-train")]
    assert "stopping training run-1-train" in output


def test_model_without_an_endpoint_is_deleted_too(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.resources["Model", "run-1-endpoint"] = {"ModelName": "run-1-endpoint"}
    assert stopping.stop_run(make_run(aws, tmp_path, screen).backend, "run-1", print) == 1
    assert aws.resources == {}


def test_cost_of_all_attempts_is_in_the_journal(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.failure_reasons["batch-score"] = "no luck"
    run = make_run(aws, tmp_path, screen)
    with pytest.raises(JobFailedError):
        housing.run_housing(run, WITHOUT_TUNING, tmp_path)
    first_cost = Journal.read(run.journal.path).spent
    host_count = 1 + 4 + 1 + 1  # the hosts of the steps raw, scale, train and batch-score
    # each job takes 10 s, and each host costs one dollar per second; the endpoint adds a few seconds
    assert first_cost == pytest.approx(10 * host_count, abs=5)
    aws.failure_reasons.clear()
    resumed_run = make_run(aws, tmp_path, screen, journal=run.journal)
    resumed_run.journal.attempt += 1
    housing.run_housing(resumed_run, WITHOUT_TUNING, tmp_path)
    assert Journal.read(run.journal.path).spent == pytest.approx(first_cost + 10)
    assert "so far" in screen.getvalue()


def test_unpriced_types_are_in_the_journal(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    run = make_run(aws, tmp_path, screen, find_price=lambda _type: None)
    housing.run_housing(run, WITHOUT_TUNING, tmp_path)
    assert Journal.read(run.journal.path).unpriced == ["ml.m5.large"]
