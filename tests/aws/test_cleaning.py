"""Nothing that costs remains, although AWS refuses to delete endpoints while it creates them."""

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

from microjobs_orchestrator.failures import JobFailedError, LauncherError
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.runs import run as run_module
from microjobs_orchestrator.runs import steps, stopping
from microjobs_orchestrator.runs.journal import Journal
from microjobs_orchestrator.runs.progress import Progress
from microjobs_orchestrator.runs.run import Run
from microjobs_orchestrator.workflows import housing
from tests.launcher.cloud import START, Cloud

QUICK = housing.Options(tuning=False)


class Aws(Cloud):
    """A cloud that cannot delete an endpoint while it is created, as AWS."""

    def __init__(self, looks: int = 4) -> None:
        super().__init__()
        self.looks = looks

    def _advance(self, word: str, name: str, thing: dict[str, Any]) -> None:
        thing["looks"] = thing.get("looks", 0) + 1
        if word != "Endpoint" or thing["looks"] >= self.looks:
            super()._advance(word, name, thing)
            what = word.removesuffix("Job")
            thing |= {f"{what}StartTime": START, f"{what}EndTime": START + timedelta(seconds=10)}

    def _delete(self, word: str, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        if word == "Endpoint" and self._thing(word, name)["EndpointStatus"] == "Creating":
            raise ServiceError("ValidationException", f'Cannot update in-progress endpoint "{name}".')
        return super()._delete(word, name, asked)

    def left(self) -> list[tuple[str, str]]:
        """What costs."""
        hosting = ("Endpoint", "EndpointConfig", "Model")
        return [key for key, thing in self.resources.items() if key[0] in hosting or "InProgress" in thing.values()]


@pytest.fixture
def aws() -> Aws:
    return Aws()


def started(
    aws: Cloud,
    folder: Path,
    screen: io.StringIO,
    *,
    keep: bool = False,
    journal: Journal | None = None,
    **values: Any,
) -> Run:
    backend = replace(aws.backend(), **{"price": {"ml.m5.large": 3600.0}.get, **values})
    journal = journal or Journal.new(folder / "runs", "housing", {}, "aws")
    return Run(backend, journal, Progress(Console(file=screen, width=200)), keep=keep)


def pressing_ctrl_c(step: str) -> Any:
    def on_describe(name: str) -> None:
        if name.endswith(step):
            os.kill(os.getpid(), signal.SIGINT)

    return on_describe


def interrupted(run: Run, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run.guard.interruptible():
        housing.housing(run, QUICK, folder)


@pytest.mark.parametrize("step", ["raw", "train", "endpoint"])
def test_ctrl_c_leaves_nothing(aws: Aws, tmp_path: Path, screen: io.StringIO, step: str) -> None:
    aws.on_describe = pressing_ctrl_c(step)
    interrupted(started(aws, tmp_path, screen), tmp_path)
    assert any(name.endswith(step) for _, name in aws.resources) or step == "endpoint"
    assert aws.left() == []


def test_endpoint_in_creation_is_deleted_afterwards(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.on_describe = pressing_ctrl_c("endpoint")
    run = started(aws, tmp_path, screen)
    interrupted(run, tmp_path)
    assert len(aws.requests_of("DeleteEndpoint")) > 1  # refused, and asked for again
    assert f"deleting endpoint {run.id}-endpoint, which is Creating" in screen.getvalue()
    assert run.journal.endpoint is None


def test_failed_endpoint_is_deleted(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.failing["endpoint"] = "no /ping"
    run = started(aws, tmp_path, screen)
    with pytest.raises(JobFailedError, match="is Failed: no /ping"):
        housing.housing(run, QUICK, tmp_path)
    assert aws.left() == []


def test_endpoint_that_takes_too_long_fails_and_is_deleted(tmp_path: Path, screen: io.StringIO) -> None:
    aws = Aws(looks=30)
    run = started(aws, tmp_path, screen, max_seconds=0)
    with (
        pytest.raises(JobFailedError, match="not in service within 0 s"),
        run.endpoint(steps.plan_endpoint(run, "s3://bucket/model.tar.gz")),
    ):
        pytest.fail("it is not in service")
    assert aws.left() == []


def test_failed_deletion_does_not_hide_the_first_error(
    aws: Aws, tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://aws")

    monkeypatch.setattr(run_module, "delete_endpoint", fail)
    aws.failing["endpoint"] = "no /ping"
    run = started(aws, tmp_path, screen)
    with pytest.raises(JobFailedError, match="no /ping"):
        housing.housing(run, QUICK, tmp_path)
    assert f"`microjobs stop {run.id}-endpoint --on aws`" in screen.getvalue()
    assert Journal.read(run.journal.path).endpoint == f"{run.id}-endpoint"


def test_undeletable_endpoint_raises(
    aws: Aws, tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "DELETE_TIMEOUT", 0.01)
    aws.resources["Endpoint", "stuck"] = {"EndpointName": "stuck", "EndpointStatus": "Creating", "looks": -9999}
    with pytest.raises(LauncherError, match="endpoint stuck is Creating and could not be deleted"):
        stopping.delete_endpoint(started(aws, tmp_path, screen).backend, "stuck", print)


def kept_note(name: str) -> str:
    return f"{name} is kept, and may cost money until it ends: `microjobs stop {name} --on aws` stops or deletes it"


def test_kept_job_and_endpoint_are_named(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.on_describe = pressing_ctrl_c("endpoint")
    run = started(aws, tmp_path, screen, keep=True)
    interrupted(run, tmp_path)
    assert ("Endpoint", f"{run.id}-endpoint") in aws.left()
    assert (
        f"{run.id}-endpoint is kept, and may cost money until it ends: `microjobs stop {run.id}-endpoint --on aws`"
        in screen.getvalue()
    )
    assert aws.requests_of("StopTrainingJob") == []


def test_kept_job_continues(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.hanging.add("train")
    aws.on_describe = pressing_ctrl_c("train")
    run = started(aws, tmp_path, screen, keep=True)
    interrupted(run, tmp_path)
    assert aws.left() == [("TrainingJob", f"{run.id}-train")]
    assert (
        f"{run.id}-train is kept, and may cost money until it ends: `microjobs stop {run.id}-train --on aws`"
        in screen.getvalue()
    )


def test_next_attempt_deletes_a_kept_endpoint(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.on_describe = pressing_ctrl_c("endpoint")
    run = started(aws, tmp_path, screen, keep=True)
    interrupted(run, tmp_path)
    aws.on_describe = lambda _name: None
    started(aws, tmp_path, screen, journal=Journal.read(run.journal.path))
    assert aws.left() == []


def test_stop_run_stops_jobs_and_deletes_the_endpoint(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    for word, name in [("TrainingJob", "run-1-train"), ("ProcessingJob", "run-1-raw"), ("TrainingJob", "run-10-train")]:
        aws.resources[word, name] = {f"{word}Name": name, f"{word}Status": "InProgress"}
    for word in ("Endpoint", "EndpointConfig", "Model"):
        aws.resources[word, "run-1-endpoint"] = {f"{word}Name": "run-1-endpoint", "EndpointStatus": "Creating"}
    output: list[str] = []
    assert stopping.stop_run(started(aws, tmp_path, screen).backend, "run-1", output.append) == 3
    assert aws.left() == [("TrainingJob", "run-10-train")]
    assert "stopping training run-1-train" in output


def test_model_without_an_endpoint_is_deleted_too(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.resources["Model", "run-1-endpoint"] = {"ModelName": "run-1-endpoint"}
    assert stopping.stop_run(started(aws, tmp_path, screen).backend, "run-1", print) == 1
    assert aws.resources == {}


def test_cost_of_all_attempts_is_in_the_journal(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    aws.failing["batch-score"] = "no luck"
    run = started(aws, tmp_path, screen)
    with pytest.raises(JobFailedError):
        housing.housing(run, QUICK, tmp_path)
    first = Journal.read(run.journal.path).spent
    hosts = 1 + 4 + 1 + 1  # raw, scale, train, batch-score
    assert first == pytest.approx(10 * hosts, abs=5)  # a dollar a second, and the endpoint's few
    aws.failing.clear()
    again = started(aws, tmp_path, screen, journal=run.journal)
    again.journal.attempt += 1
    housing.housing(again, QUICK, tmp_path)
    assert Journal.read(run.journal.path).spent == pytest.approx(first + 10)
    assert "so far" in screen.getvalue()


def test_unpriced_types_are_in_the_journal(aws: Aws, tmp_path: Path, screen: io.StringIO) -> None:
    run = started(aws, tmp_path, screen, price=lambda _type: None)
    housing.housing(run, QUICK, tmp_path)
    assert Journal.read(run.journal.path).unpriced == ["ml.m5.large"]
