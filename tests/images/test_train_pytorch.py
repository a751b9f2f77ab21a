"""The straight line of the PyTorch notebook, to its last digit."""

from pathlib import Path

import numpy as np
import pytest

from microjobs.bundle import read_bundle
from microjobs.contract import Layout
from tests.images.conftest import Run, RunJob
from tests.images.training import weights, write_request, write_straight_line

pytestmark = pytest.mark.engine

TABLE = """\
Epoch: 0 | Train loss: 0.757 | Test loss: 0.725
Epoch: 20 | Train loss: 0.525 | Test loss: 0.454
Epoch: 40 | Train loss: 0.294 | Test loss: 0.183
Epoch: 60 | Train loss: 0.077 | Test loss: 0.073
Epoch: 80 | Train loss: 0.053 | Test loss: 0.116
Epoch: 100 | Train loss: 0.046 | Test loss: 0.105
Epoch: 120 | Train loss: 0.039 | Test loss: 0.089
Epoch: 140 | Train loss: 0.032 | Test loss: 0.074
Epoch: 160 | Train loss: 0.025 | Test loss: 0.058
Epoch: 180 | Train loss: 0.018 | Test loss: 0.042
Epoch: 200 | Train loss: 0.011 | Test loss: 0.026
Epoch: 220 | Train loss: 0.004 | Test loss: 0.009
Epoch: 240 | Train loss: 0.004 | Test loss: 0.006
Epoch: 260 | Train loss: 0.004 | Test loss: 0.006
Epoch: 280 | Train loss: 0.004 | Test loss: 0.006
"""


@pytest.fixture
def run(root: Path, run_job: RunJob) -> Run:
    layout = Layout(root)
    write_request(
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
    write_straight_line(layout)
    return run_job("train-pytorch", ["train"], root)


def test_prints_the_notebooks_table(run: Run) -> None:
    printed = [line for line in run.log.splitlines(keepends=True) if line.startswith("Epoch:")]
    assert "".join(printed) == TABLE


def test_ends_at_the_notebooks_weight_and_bias(run: Run) -> None:
    found = {round(float(value.item()), 4) for value in weights(run.layout.model / "model.onnx") if value.size == 1}
    assert {0.3067, 0.9011} <= found


def test_straight_line_is_not_scaled(run: Run) -> None:
    bundle = read_bundle(run.layout.model)
    assert bundle.scaler is None
    assert bundle.manifest.framework == "pytorch"
    assert (run.layout.model / "model.pth").exists()
    assert (run.layout.output_data / "predictions.png").exists()


def test_trains_on_a_single_test_row(root: Path, run_job: RunJob) -> None:
    layout = Layout(root)
    write_request(layout, epochs=2)
    write_straight_line(layout)
    for kind in ("x", "y"):
        path = layout.channel("test") / f"{kind}_test.npy"
        np.save(path, np.load(path)[:1])
    run_job("train-pytorch", ["train"], root)
