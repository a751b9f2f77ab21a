"""Tests of runs that fail, are interrupted by Ctrl-C, or are resumed."""

import errno
import io
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from microjobs_orchestrator.failures import JobFailedError, UsageError
from microjobs_orchestrator.report.blocks import BatchScoreReport, Predictions
from microjobs_orchestrator.runs.interrupt_handler import InterruptHandler
from microjobs_orchestrator.runs.journal import Journal, find_last_unfinished
from microjobs_orchestrator.runs.progress import Progress
from microjobs_orchestrator.runs.run import Run
from microjobs_orchestrator.workflows.housing import Options, run_housing
from tests.launcher.cloud import Cloud
from tests.launcher.conftest import StartRun, find_block

WITHOUT_TUNING = Options(tuning=False)


def list_names(cloud: Cloud, operation: str) -> list[str]:
    noun = operation.removeprefix("Create").removeprefix("Stop")
    return [request[f"{noun}Name"] for request in cloud.find_requests(operation)]


def read_next_attempt(journal: Journal) -> Journal:
    next_journal = Journal.read(journal.path)
    next_journal.attempt += 1
    return next_journal


def test_failed_job_reports_reason_and_last_log_lines(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    cloud.failure_reasons["train"] = "the training diverged"
    run = start_run()
    with pytest.raises(JobFailedError, match="is Failed: the training diverged") as failure:
        run_housing(run, WITHOUT_TUNING, tmp_path)
    assert failure.value.last_log_lines == tuple(cloud.log_lines)
    assert cloud.find_requests("StopTrainingJob") == []


def test_resumed_run_skips_finished_steps(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    cloud.failure_reasons["train"] = "no luck"
    run = start_run()
    with pytest.raises(JobFailedError):
        run_housing(run, WITHOUT_TUNING, tmp_path)
    cloud.failure_reasons.clear()
    resumed_run = start_run(journal=read_next_attempt(run.journal))
    assert find_block(run_housing(resumed_run, WITHOUT_TUNING, tmp_path), BatchScoreReport).text
    assert list_names(cloud, "CreateProcessingJob") == [f"{run.id}-raw", f"{run.id}-scale", f"{run.id}-batch-score-2"]
    assert list_names(cloud, "CreateTrainingJob") == [f"{run.id}-train", f"{run.id}-train-2"]


def test_resumed_run_reuses_stored_predictions(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    cloud.failure_reasons["batch-score"] = "no luck"
    run = start_run()
    with pytest.raises(JobFailedError):
        run_housing(run, WITHOUT_TUNING, tmp_path)
    cloud.failure_reasons.clear()
    resumed_run = start_run(journal=read_next_attempt(run.journal))
    assert find_block(run_housing(resumed_run, WITHOUT_TUNING, tmp_path), Predictions).predictions == pytest.approx(
        [0.9] * 4 + [1.2] * 6
    )
    assert len(cloud.find_requests("CreateEndpoint")) == 1


def test_resumed_run_follows_a_running_job(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    cloud.on_describe = exit_at("train")
    run = start_run()
    with pytest.raises(SystemExit):
        run_housing(run, WITHOUT_TUNING, tmp_path)
    cloud.on_describe = lambda _name: None
    cloud.resources["TrainingJob", f"{run.id}-train"]["TrainingJobStatus"] = "InProgress"
    resumed_run = start_run(journal=read_next_attempt(run.journal))
    run_housing(resumed_run, WITHOUT_TUNING, tmp_path)
    assert list_names(cloud, "CreateTrainingJob") == [f"{run.id}-train"]


def exit_at(step: str) -> Any:
    def on_describe(name: str) -> None:
        if step in name:
            raise SystemExit

    return on_describe


def test_steps_after_a_deleted_job_are_repeated(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    cloud.failure_reasons["batch-score"] = "no luck"
    run = start_run()
    with pytest.raises(JobFailedError):
        run_housing(run, WITHOUT_TUNING, tmp_path)
    cloud.failure_reasons.clear()
    del cloud.resources["ProcessingJob", f"{run.id}-scale"]
    resumed_run = start_run(journal=read_next_attempt(run.journal))
    run_housing(resumed_run, WITHOUT_TUNING, tmp_path)
    assert list_names(cloud, "CreateTrainingJob") == [f"{run.id}-train", f"{run.id}-train-2"]
    assert list_names(cloud, "CreateProcessingJob")[3:] == [f"{run.id}-scale-2", f"{run.id}-batch-score-2"]


def test_endpoint_left_by_a_killed_run_is_deleted(cloud: Cloud, start_run: StartRun) -> None:
    run = start_run()
    run.journal.endpoint = f"{run.id}-endpoint"
    run.backend.sagemaker.create_endpoint(EndpointName=run.journal.endpoint, EndpointConfigName="config")
    start_run(journal=run.journal)
    assert cloud.resources == {}
    assert Journal.read(run.journal.path).endpoint is None


@pytest.mark.parametrize(("step", "noun"), [("raw", "ProcessingJob"), ("train", "TrainingJob")])
def test_ctrl_c_stops_the_running_job(
    cloud: Cloud, start_run: StartRun, tmp_path: Path, step: str, noun: str, screen: io.StringIO
) -> None:
    cloud.hanging_steps.add(step)
    cloud.on_describe = press_ctrl_c_at(step)
    run = start_run()
    with pytest.raises(KeyboardInterrupt), run.interrupts.handle_signals():
        run_housing(run, WITHOUT_TUNING, tmp_path)
    assert list_names(cloud, f"Stop{noun}") == [f"{run.id}-{step}"]
    assert cloud.resources[noun, f"{run.id}-{step}"][f"{noun}Status"] == "Stopped"
    assert f"stopping {run.id}-{step}" in screen.getvalue()


def press_ctrl_c_at(step: str) -> Any:
    """Return a function that presses Ctrl-C at each Describe call for the step's job: first while the job runs, then
    while the run stops it."""

    def on_describe(name: str) -> None:
        if step in name:
            os.kill(os.getpid(), signal.SIGINT)

    return on_describe


def test_ctrl_c_deletes_the_endpoint(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    cloud.hanging_steps.add("endpoint")
    cloud.on_describe = press_ctrl_c_at("endpoint")
    run = start_run()
    with pytest.raises(KeyboardInterrupt), run.interrupts.handle_signals():
        run_housing(run, WITHOUT_TUNING, tmp_path)
    assert [noun for noun, _ in cloud.resources if noun in ("Endpoint", "EndpointConfig", "Model")] == []


def test_ctrl_c_during_deletion_deletes_the_endpoint(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    def interrupt_deletion(name: str) -> None:
        if name.endswith("-endpoint") and cloud.find_requests("InvokeEndpoint"):
            cloud.on_describe = lambda _: None
            os.kill(os.getpid(), signal.SIGINT)

    cloud.on_describe = interrupt_deletion
    run = start_run()
    with pytest.raises(KeyboardInterrupt), run.interrupts.handle_signals():
        run_housing(run, WITHOUT_TUNING, tmp_path)
    assert [noun for noun, _ in cloud.resources if noun in ("Endpoint", "EndpointConfig", "Model")] == []


def test_ctrl_c_during_a_create_call_stops_the_job(
    cloud: Cloud, start_run: StartRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An aborted Create request may still create the job on AWS, and nothing would stop that job."""
    create, is_created = cloud._create, threading.Event()

    def create_later(noun: str, name: str, request: dict[str, Any]) -> None:
        create(noun, name, request)
        is_created.set()

    def press_ctrl_c_and_create(noun: str, name: str, request: dict[str, Any]) -> dict[str, Any]:
        if noun != "TrainingJob":
            return create(noun, name, request)
        threading.Timer(0.05, create_later, (noun, name, request)).start()
        os.kill(os.getpid(), signal.SIGINT)
        assert is_created.wait(10)
        return {}

    monkeypatch.setattr(cloud, "_create", press_ctrl_c_and_create)
    cloud.hanging_steps.add("train")
    run = start_run()
    with pytest.raises(KeyboardInterrupt), run.interrupts.handle_signals():
        run_housing(run, WITHOUT_TUNING, tmp_path)
    assert is_created.wait(10)
    assert list_names(cloud, "StopTrainingJob") == [f"{run.id}-train"]
    assert cloud.resources["TrainingJob", f"{run.id}-train"]["TrainingJobStatus"] == "Stopped"


class FullDisk(io.StringIO):
    """A file on a disk that becomes full."""

    is_full = False

    def write(self, text: str) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_job_is_stopped_although_output_cannot_be_written(cloud: Cloud, tmp_path: Path) -> None:
    screen = FullDisk()

    def fill_disk_and_press_ctrl_c(name: str) -> None:
        if name.endswith("-train"):
            screen.is_full = True
            os.kill(os.getpid(), signal.SIGINT)

    cloud.hanging_steps.add("train")
    cloud.on_describe = fill_disk_and_press_ctrl_c
    journal = Journal.new(tmp_path / "runs", "housing", {})
    run = Run(cloud.make_backend(), journal, Progress(Console(file=screen, width=80)))
    with pytest.raises((KeyboardInterrupt, OSError)), run.interrupts.handle_signals():
        run_housing(run, WITHOUT_TUNING, tmp_path)
    assert list_names(cloud, "StopTrainingJob") == [f"{run.id}-train"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_handlers_are_restored(number: signal.Signals) -> None:
    handler = signal.signal(number, signal.SIG_DFL)
    try:
        with InterruptHandler().handle_signals():
            assert signal.getsignal(number) is not signal.SIG_DFL
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, handler)


def test_ignored_sighup_stays_ignored() -> None:
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup also ignores the signal
    try:
        with InterruptHandler().handle_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, handler)


def test_runs_of_the_same_second_have_different_names(tmp_path: Path) -> None:
    journals = [Journal.new(tmp_path, "housing", {}) for _ in range(3)]
    assert len({journal.id for journal in journals}) == 3
    # The names of a run's jobs begin with the run's name and a dash.
    assert not [
        left
        for left in journals
        for right in journals
        if left is not right and f"{right.id}-".startswith(f"{left.id}-")
    ]
    assert max(len(f"{journal.id}-tune-2") for journal in journals) <= 32


def test_saved_journal_is_read_unchanged(start_run: StartRun, tmp_path: Path) -> None:
    run = start_run()
    run_housing(run, WITHOUT_TUNING, tmp_path)
    assert Journal.read(run.journal.path) == run.journal
    assert [entry.step for entry in run.journal.steps] == ["raw", "scale", "train", "predictions", "batch-score"]
    assert all(entry.seconds is not None and 0 <= entry.seconds < 100 for entry in run.journal.steps)


def test_last_unfinished_run_is_selected(tmp_path: Path) -> None:
    old_journal, new_journal, finished_journal = (Journal.new(tmp_path, "housing", {}) for _ in range(3))
    finished_journal.finished = True
    finished_journal.save()
    assert find_last_unfinished(tmp_path, "housing") == new_journal.path != old_journal.path


def test_nothing_to_resume_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no unfinished run of housing"):
        find_last_unfinished(tmp_path, "housing")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "x"}', '{"steps": [{}]}'])
def test_damaged_journal_raises(tmp_path: Path, content: str) -> None:
    path = tmp_path / "housing-1.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"housing-1\.json is not the journal of a run"):
        Journal.read(path)
