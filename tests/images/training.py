"""Inputs of training jobs, and the weights of their models."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import numpy_helper

from microjobs.arrays import save_array
from microjobs.contract import (
    Channel,
    Layout,
    ResourceConfig,
    write_hyperparameters,
    write_input_data_config,
    write_training_resource_config,
)
from microjobs.scaler import Scaler, write_scaler
from tests.conftest import BOSTON
from tests.images.example import Example

LINEAR_REGRESSION_MSE = 23.2
"""Mean squared error of ordinary least squares on the split of the housing data that `write_boston_data` writes."""

STRAIGHT_LINE_TABLE = """\
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
"""The table that the PyTorch notebook prints for the data of `write_straight_line_data`; see
`orchestrator/workflows/straight_line.py`."""


def write_training_config(layout: Layout, **hyperparameters: object) -> None:
    """Write the configuration that a container gets for a request with these hyperparameters and the channels `train`
    and `test`, and create SageMaker's folders."""
    write_hyperparameters(layout, hyperparameters)
    write_input_data_config(layout, {"train": Channel(), "test": Channel()})
    write_training_resource_config(layout, ResourceConfig())
    for folder in (layout.channel("train"), layout.channel("test"), layout.model, layout.output_data):
        folder.mkdir(parents=True, exist_ok=True)


def write_split(layout: Layout, split: str, x: ArrayLike, y: ArrayLike) -> None:
    for array_name, values in (("x", x), ("y", y)):
        save_array(layout.channel(split) / f"{array_name}_{split}.npy", np.asarray(values))


def write_small_data(layout: Layout, features: int = 4) -> None:
    """Write 24 scaled training rows and 8 scaled test rows of a linear target, and a scaler."""
    random = np.random.default_rng(0)
    x = random.normal(size=(32, features))
    y = x.sum(axis=1) + 20
    write_split(layout, "train", x[:24], y[:24])
    write_split(layout, "test", x[24:], y[24:])
    write_scaler(
        layout.channel("train"), Scaler(count=[24] * features, mean=[400.0] * features, scale=[170.0] * features)
    )


def write_straight_line_data(layout: Layout) -> None:
    """Write the PyTorch notebook's `y = 0.3 x + 0.9`: 80 training rows and 20 test rows, not scaled."""
    x = np.arange(0, 1, 0.01, dtype=np.float32)[:, np.newaxis]
    y = np.float32(0.3) * x + np.float32(0.9)
    write_split(layout, "train", x[:80], y[:80])
    write_split(layout, "test", x[80:], y[80:])


def write_boston_data(layout: Layout) -> None:
    """Write Keras's split of the housing data, scaled with the mean and standard deviation of the training rows."""
    with np.load(BOSTON) as arrays:
        x, y = arrays["x"], arrays["y"]
    order = np.arange(len(x))
    np.random.RandomState(113).shuffle(order)
    x, y, train_rows = x[order], y[order], int(0.8 * len(x))
    mean, scale = x[:train_rows].mean(axis=0), x[:train_rows].std(axis=0)
    write_split(layout, "train", (x[:train_rows] - mean) / scale, y[:train_rows])
    write_split(layout, "test", (x[train_rows:] - mean) / scale, y[train_rows:])
    write_scaler(
        layout.channel("train"), Scaler(count=[train_rows] * x.shape[1], mean=mean.tolist(), scale=scale.tolist())
    )


def load_weights(model: Path) -> list[NDArray[np.float32]]:
    """Return the weights of a model.onnx, in the order of their names."""
    tensors = sorted(onnx.load(model).graph.initializer, key=lambda tensor: tensor.name)
    return [np.asarray(numpy_helper.to_array(tensor)) for tensor in tensors]


def make_trainer_example(*own_files: str, max_megabytes: int) -> Example:
    """Return the example of a trainer: a run on a few rows, and a run that fails because it has no training targets.

    Args:
        own_files: files that only this trainer writes to the model folder.
    """

    def prepare(layout: Layout) -> None:
        write_training_config(layout, epochs=3)
        write_small_data(layout)

    def corrupt(layout: Layout) -> None:
        (layout.channel("train") / "y_train.npy").unlink()

    bundle = ("model.onnx", "manifest.json", "scaler.json", *own_files)
    output = ("metrics.json", "learning-curve.png", "predicted-versus-target.png")
    artifacts = (*(f"model/{name}" for name in bundle), *(f"output/data/{name}" for name in output))
    return Example(
        arguments=["train"],
        prepare=prepare,
        corrupt=corrupt,
        expected_error="has no y_train.npy",
        artifacts=artifacts,
        max_megabytes=max_megabytes,
    )
