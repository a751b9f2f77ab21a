"""Stopped and killed trainers resume and end with the same weights, or report why they cannot resume."""

import functools
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
from docker.errors import APIError

from microjobs.bundle import read_bundle
from microjobs.contract import Layout
from microjobs.trainer.checkpoints import MANIFEST
from tests.images.conftest import EndedJob, Job, RunJob, Starter, StartJob
from tests.images.training import load_weights, write_small_data, write_training_config

pytestmark = pytest.mark.engine

EPOCHS = 1500
MAX_STOP_SECONDS = 10.0
"""Maximum time from SIGTERM to the end of a job."""

KILL_COUNTS = {"train-pytorch": 6, "train-tensorflow": 2}
STOP_COUNTS = {"train-pytorch": 2, "train-tensorflow": 1}
"""Numbers of SIGKILL and SIGTERM per image, at random moments; MICROJOBS_DRILL_ENDS overrides both."""
MAX_SIGNAL_SECONDS = {"train-pytorch": 4.0, "train-tensorflow": 10.0}
"""Latest time of a signal, in seconds: for SIGKILL after the start of the container, for SIGTERM after the moment from
which the job handles signals. The latest signals can arrive during the export of the model."""

EXTRA_HYPERPARAMETERS: Mapping[str, Mapping[str, object]] = {
    "train-pytorch": {"eval_every": 100},
    "train-tensorflow": {},
}

TrainWithoutInterruption = Callable[[str], list[bytes]]


@pytest.fixture
def job() -> str:
    """The image of tests without a parameter `job`. Both trainers use the tested code; train-pytorch starts faster."""
    return "train-pytorch"


@pytest.fixture
def layout(job: str, root: Path) -> Layout:
    """A training job of a few seconds with a folder for checkpoints."""
    layout = Layout(root)
    write_training_request(layout, **EXTRA_HYPERPARAMETERS[job])
    write_small_data(layout)
    layout.checkpoints.mkdir()
    return layout


def write_training_request(layout: Layout, **hyperparameters: object) -> None:
    defaults = {"epochs": EPOCHS, "batch_size": 8, "optimizer": "adam", "best_weights": True}
    write_training_config(layout, **{**defaults, **hyperparameters})


def read_weights(layout: Layout) -> list[bytes]:
    """Return the bytes of the model's weights."""
    return [value.tobytes() for value in load_weights(layout.model / "model.onnx")]


@pytest.fixture(scope="module")
def train_without_interruption(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[bytes]]]:
    """A function that returns the weights of an uninterrupted job."""
    starter = Starter()

    @functools.cache
    def train(job: str) -> list[bytes]:
        layout = Layout(tmp_path_factory.mktemp(job))
        write_training_request(layout, **EXTRA_HYPERPARAMETERS[job])
        write_small_data(layout)
        run = starter(job, ["train"], layout.root).wait()
        assert run.exit_code == 0, run.log
        return read_weights(layout)

    yield train
    starter.close()


def choose_random_moments(job: str, counts: Mapping[str, int]) -> Iterator[float]:
    count = int(os.environ.get("MICROJOBS_DRILL_ENDS", counts[job]))
    seed = random.randrange(1 << 32)  # noqa: S311
    print(f"seed of the random moments: {seed}")
    generator = random.Random(seed)  # noqa: S311
    return (generator.uniform(0, MAX_SIGNAL_SECONDS[job]) for _ in range(count))


def send_signal(job: Job, signal_number: int, seconds: float) -> EndedJob:
    """Send a signal to process 1 of the container after this number of seconds, and wait until the job ends."""
    time.sleep(seconds)
    try:
        job.container.kill(signal.Signals(signal_number).name)
    except APIError as error:
        if error.status_code != HTTPStatus.CONFLICT:  # a conflict means that the job has already ended
            raise
    return job.wait(timeout=60)


@pytest.mark.parametrize("job", KILL_COUNTS)
def test_killed_training_resumes_to_the_same_weights(
    job: str, layout: Layout, start_job: StartJob, run_job: RunJob, train_without_interruption: TrainWithoutInterruption
) -> None:
    for moment in choose_random_moments(job, KILL_COUNTS):
        run = send_signal(start_job(job, ["train"], layout.root), signal.SIGKILL, moment)
        assert run.exit_code in (0, 137), run.log
    run_job(job, ["train"], layout.root)
    assert read_weights(layout) == train_without_interruption(job)
    assert read_bundle(layout.model).manifest.metrics["epochs"] == EPOCHS


@pytest.mark.parametrize("job", STOP_COUNTS)
def test_stopped_training_exits_with_0_and_resumes(
    job: str, layout: Layout, start_job: StartJob, run_job: RunJob, train_without_interruption: TrainWithoutInterruption
) -> None:
    for moment in choose_random_moments(job, STOP_COUNTS):
        running_job = start_job(job, ["train"], layout.root)
        running_job.wait_until_signals_are_handled()
        time.sleep(moment)
        seconds = running_job.stop(timeout=60)
        assert running_job.exit_code == 0, running_job.log
        assert seconds < MAX_STOP_SECONDS, running_job.log
        assert "stopped by SIGTERM" in running_job.log or f"{EPOCHS} epochs in" in running_job.log
    run_job(job, ["train"], layout.root)
    assert read_weights(layout) == train_without_interruption(job)


def test_damaged_checkpoint_is_set_aside_with_a_warning(
    job: str, layout: Layout, start_job: StartJob, train_without_interruption: TrainWithoutInterruption
) -> None:
    running_job = start_job(job, ["train"], layout.root)
    running_job.wait_for_log("Epoch: 200 ")
    running_job.stop(timeout=60)
    assert running_job.log.rstrip().endswith("start the job again with the same CheckpointConfig to resume")
    newest = max(layout.checkpoints.iterdir())
    largest = max(newest.iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    run = start_job(job, ["train"], layout.root).wait()
    assert (run.exit_code, len(run.warnings())) == (0, 1), run.log
    assert f"{newest.name} is damaged: {largest.name} has" in run.warnings()[0]
    assert read_weights(layout) == train_without_interruption(job)


def test_checkpoint_of_another_training_is_refused(job: str, layout: Layout, run_job: RunJob) -> None:
    write_training_request(layout, **EXTRA_HYPERPARAMETERS[job], epochs=2)
    run_job(job, ["train"], layout.root)
    write_training_request(layout, **EXTRA_HYPERPARAMETERS[job], epochs=2, learning_rate=0.02)
    y = layout.channel("train") / "y_train.npy"
    np.save(y, np.load(y) + 1)
    run = run_job(job, ["train"], layout.root, exit_code=2)
    assert run.failure is not None
    assert "is a checkpoint of another training: learning_rate was 0.01, is 0.02; y_train was (24, 1)" in run.failure


def test_early_stopping_keeps_the_best_weights(job: str, layout: Layout, run_job: RunJob) -> None:
    write_training_request(layout, eval_every=1, early_stopping=5, learning_rate=0.05)
    log = run_job(job, ["train"], layout.root).log
    losses = [float(line.rpartition(" ")[2]) for line in log.splitlines() if line.startswith("Epoch:")]
    metrics = read_bundle(layout.model).manifest.metrics
    assert metrics["epochs"] == len(losses) == metrics["best_epoch"] + 6
    assert metrics["test_loss"] == pytest.approx(min(losses), abs=1e-3)


def test_temporary_checkpoints_are_removed_at_the_end(job: str, layout: Layout, run_job: RunJob) -> None:
    layout.checkpoints.rmdir()
    write_training_request(layout, **EXTRA_HYPERPARAMETERS[job], epochs=2)
    run_job(job, ["train"], layout.root)
    assert not layout.checkpoints.exists()


def test_finished_training_only_saves_its_model(job: str, layout: Layout, run_job: RunJob) -> None:
    write_training_request(layout, **EXTRA_HYPERPARAMETERS[job], epochs=300, keep_checkpoints=2)
    run_job(job, ["train"], layout.root)
    checkpoints, weights = sorted(layout.checkpoints.iterdir()), read_weights(layout)
    assert len(checkpoints) == 2
    assert json.loads((checkpoints[-1] / MANIFEST).read_text())["epoch"] == 300
    (layout.model / "model.onnx").unlink()
    assert "resuming after 300 of 300 epochs" in run_job(job, ["train"], layout.root).log
    assert read_weights(layout) == weights
