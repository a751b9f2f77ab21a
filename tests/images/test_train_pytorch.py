"""A straight line, the example of the PyTorch notebook on which the workflow `straight-line` is based. The trainer
prints the notebook's table, and learns its weight and bias."""

from pathlib import Path

import numpy as np
import pytest

from microjobs.bundle import read_bundle
from microjobs.contract import Layout
from tests.images.conftest import EndedJob, RunJob, RunPython
from tests.images.training import STRAIGHT_LINE_TABLE, load_weights, write_straight_line_data, write_training_config

pytestmark = pytest.mark.engine

IN_IMAGE = Path(__file__).parent / "in_image"


@pytest.fixture
def job(root: Path, run_job: RunJob) -> EndedJob:
    layout = Layout(root)
    write_training_config(
        layout,
        model="linear",
        loss="l1",
        optimizer="sgd",
        learning_rate=0.01,
        epochs=300,
        eval_every=20,
        seed=42,
        batch_size=0,
    )
    write_straight_line_data(layout)
    return run_job("train-pytorch", ["train"], root)


def test_log_contains_the_table_of_the_notebook(job: EndedJob) -> None:
    table_lines = [line for line in job.log.splitlines(keepends=True) if line.startswith("Epoch:")]
    assert "".join(table_lines) == STRAIGHT_LINE_TABLE


def test_weight_and_bias_match_the_notebook(job: EndedJob) -> None:
    weights = {
        round(float(value.item()), 4) for value in load_weights(job.layout.model / "model.onnx") if value.size == 1
    }
    assert {0.3067, 0.9011} <= weights


def test_straight_line_is_not_scaled(job: EndedJob) -> None:
    bundle = read_bundle(job.layout.model)
    assert bundle.scaler is None
    assert bundle.manifest.framework == "pytorch"
    assert (job.layout.model / "model.pth").exists()
    assert (job.layout.output_data / "predictions.png").exists()


def test_training_succeeds_with_a_single_test_row(root: Path, run_job: RunJob) -> None:
    layout = Layout(root)
    write_training_config(layout, epochs=2)
    write_straight_line_data(layout)
    for array_name in ("x", "y"):
        path = layout.channel("test") / f"{array_name}_test.npy"
        np.save(path, np.load(path)[:1])
    run_job("train-pytorch", ["train"], root)


def test_gpu_settings_are_ignored_without_a_gpu(root: Path, run_job: RunJob) -> None:
    layout = Layout(root)
    write_training_config(layout, epochs=2, mixed_precision="true", compile="true")
    write_straight_line_data(layout)
    job = run_job("train-pytorch", ["train"], root)
    assert "no GPU: training without mixed_precision and compile" in job.log


def test_small_steps_use_one_thread(root: Path, run_python: RunPython) -> None:
    run_python("train-pytorch", IN_IMAGE / "threads.py", root)
