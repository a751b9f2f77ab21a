"""Common behaviour of both trainers."""

import json
from pathlib import Path

import numpy as np
import pytest

from microjobs.bundle import read_bundle
from microjobs.contract import Layout
from microjobs.predictor import Predictor
from tests.conftest import BOSTON
from tests.images.conftest import RunJob, StartJob
from tests.images.training import (
    LINEAR_REGRESSION_MSE,
    load_weights,
    write_boston_data,
    write_small_data,
    write_split,
    write_training_config,
)

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("job", ["train-tensorflow", "train-pytorch"])]

METRICS = {"epochs", "seconds", "train_loss", "train_mse", "train_mae", "test_loss", "test_mse", "test_mae"}


@pytest.fixture
def layout(root: Path) -> Layout:
    """A small training job that is ready to run."""
    layout = Layout(root)
    write_training_config(layout, epochs=3, batch_size=8)
    write_small_data(layout)
    return layout


def test_trainer_writes_bundle_metrics_and_plots(job: str, layout: Layout, run_job: RunJob) -> None:
    run = run_job(job, ["train"], layout.root)
    bundle = read_bundle(layout.model)
    assert bundle.scaler is not None
    assert bundle.manifest.features == 4
    assert bundle.manifest.hyperparameters["epochs"] == 3
    assert json.loads((layout.output_data / "metrics.json").read_text()) == bundle.manifest.metrics
    assert set(bundle.manifest.metrics) == METRICS
    for name in ("learning-curve.png", "predicted-versus-target.png"):
        assert (layout.output_data / name).read_bytes().startswith(b"\x89PNG")
    assert f"Test MSE: {bundle.manifest.metrics['test_mse']:.4g} |" in run.log
    assert run.warnings() == []


def test_model_takes_any_number_of_rows(job: str, layout: Layout, run_job: RunJob) -> None:
    run_job(job, ["train"], layout.root)
    predictor = Predictor(read_bundle(layout.model))
    rows = np.ones((7, 4), np.float32)
    assert predictor.predict(rows[:1]).shape == (1, 1)
    np.testing.assert_allclose(predictor.predict(rows)[0], predictor.predict(rows[:1])[0], rtol=1e-6)


def test_same_seed_gives_same_weights(job: str, layout: Layout, run_job: RunJob) -> None:
    models = []
    for seed in (1, 1, 2):
        write_training_config(layout, epochs=3, batch_size=8, seed=seed)
        run_job(job, ["train"], layout.root)
        models.append(load_weights(layout.model / "model.onnx"))
    first, same_seed, other_seed = models
    assert all(np.array_equal(*pair) for pair in zip(first, same_seed, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(first, other_seed, strict=True))


@pytest.mark.skipif(not BOSTON.exists(), reason=f"{BOSTON} does not exist")
@pytest.mark.parametrize("seed", range(5))
def test_model_beats_linear_regression_on_housing(job: str, seed: int, root: Path, run_job: RunJob) -> None:
    layout = Layout(root)
    write_training_config(layout, epochs=70, batch_size=128, learning_rate=0.01, seed=seed)
    write_boston_data(layout)
    run_job(job, ["train"], root)
    assert read_bundle(layout.model).manifest.metrics["test_mse"] < LINEAR_REGRESSION_MSE


@pytest.mark.parametrize(("optimizer", "loss"), [("adam", "huber"), ("rmsprop", "l1")])
def test_trainer_accepts_other_optimizers_and_losses(
    job: str, optimizer: str, loss: str, layout: Layout, run_job: RunJob
) -> None:
    write_training_config(layout, epochs=2, batch_size=0, optimizer=optimizer, loss=loss)
    run_job(job, ["train"], layout.root)
    metrics = read_bundle(layout.model).manifest.metrics
    assert (metrics["test_loss"] == metrics["test_mae"]) == (loss == "l1")


def test_trainer_reads_all_shards_of_a_channel(job: str, layout: Layout, run_job: RunJob) -> None:
    for array_name in ("x", "y"):
        path = layout.channel("train") / f"{array_name}_train.npy"
        for shard, rows in enumerate(np.split(np.load(path), 2)):
            np.save(layout.channel("train") / f"{array_name}_train-{shard:05}-of-00002.npy", rows)
        path.unlink()
    assert "24 training rows" in run_job(job, ["train"], layout.root).log


def test_misspelt_hyperparameter_ends_the_job_before_data_is_read(job: str, layout: Layout, run_job: RunJob) -> None:
    write_training_config(layout, epoch=3)
    run = run_job(job, ["train"], layout.root, exit_code=2)
    assert run.failure == "hyperparameters: 'epoch' (value '3') is unknown: did you mean 'epochs'?"
    assert "training rows" not in run.log


def test_error_names_the_row_with_nan(job: str, layout: Layout, run_job: RunJob) -> None:
    path = layout.channel("train") / "x_train.npy"
    rows = np.load(path)
    rows[5, 1] = np.nan
    np.save(path, rows)
    run = run_job(job, ["train"], layout.root, exit_code=2)
    assert run.failure is not None
    assert run.failure.startswith("x_train.npy row 5 contains")


def test_error_names_the_missing_channel(job: str, root: Path, run_job: RunJob) -> None:
    layout = Layout(root)
    write_training_config(layout)
    layout.channel("train").rmdir()
    run = run_job(job, ["train"], root, exit_code=2)
    assert run.failure == "channel 'train' is missing: give the job an input with x_train.npy and y_train.npy"


def test_test_rows_narrower_than_training_rows_are_refused(job: str, layout: Layout, run_job: RunJob) -> None:
    write_split(layout, "test", np.ones((8, 3)), np.ones(8))
    run = run_job(job, ["train"], layout.root, exit_code=2)
    widths = "x_train has rows of length 4, but x_test has rows of length 3"
    assert run.failure == f"{widths}: preprocess both in the same job"


def test_error_of_diverged_training_names_the_learning_rate(job: str, layout: Layout, run_job: RunJob) -> None:
    write_training_config(layout, epochs=3, learning_rate=1e30)
    run = run_job(job, ["train"], layout.root, exit_code=2)
    assert run.failure is not None
    assert run.failure.startswith("the training diverged: in epoch 0")
    assert "learning_rate" in run.failure
    assert not (layout.model / "manifest.json").exists()


def test_stopped_training_saves_the_model(job: str, layout: Layout, start_job: StartJob) -> None:
    write_training_config(layout, epochs=1_000_000, batch_size=8)
    running_job = start_job(job, ["train"], layout.root)
    # PyTorch's training prints this line after the epoch, Keras before it.
    running_job.wait_for_log("Epoch: 5 " if job == "train-pytorch" else "Epoch 6/")
    running_job.stop(timeout=120)
    run = running_job.wait()
    assert run.exit_code == 0, run.log
    assert run.failure is None
    assert "of 1000000 epochs; the model is saved" in run.log
    assert read_bundle(layout.model).manifest.metrics["epochs"] >= 5
