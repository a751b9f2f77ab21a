"""Inputs of training jobs, and what to look at afterwards."""

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
from tests.conftest import REPOSITORY

BOSTON = REPOSITORY.parent / "shared" / "data" / "boston_housing.npz"
LINEAR_REGRESSION_MSE = 23.2
"""Of ordinary least squares on the same split of the housing data."""


def write_request(layout: Layout, **hyperparameters: object) -> None:
    """The configuration of a training job with the channels `train` and `test`; folders that the platform makes."""
    write_hyperparameters(layout, hyperparameters)
    write_input_data_config(layout, {"train": Channel(), "test": Channel()})
    write_training_resource_config(layout, ResourceConfig())
    for folder in (layout.channel("train"), layout.channel("test"), layout.model, layout.output_data):
        folder.mkdir(parents=True, exist_ok=True)


def write_split(layout: Layout, split: str, x: ArrayLike, y: ArrayLike) -> None:
    for kind, values in (("x", x), ("y", y)):
        save_array(layout.channel(split) / f"{kind}_{split}.npy", np.asarray(values))


def write_small(layout: Layout, features: int = 4) -> None:
    """Twenty-four training rows and eight test rows of a linear target, scaled."""
    random = np.random.default_rng(0)
    x = random.normal(size=(32, features))
    y = x.sum(axis=1) + 20
    write_split(layout, "train", x[:24], y[:24])
    write_split(layout, "test", x[24:], y[24:])
    write_scaler(layout.channel("train"), Scaler([24] * features, [400.0] * features, [170.0] * features))


def write_straight_line(layout: Layout) -> None:
    """The notebook's `y = 0.3 x + 0.9`: 80 training rows, 20 test rows, not scaled."""
    x = np.arange(0, 1, 0.01, dtype=np.float32)[:, np.newaxis]
    y = np.float32(0.3) * x + np.float32(0.9)
    write_split(layout, "train", x[:80], y[:80])
    write_split(layout, "test", x[80:], y[80:])


def write_boston(layout: Layout) -> None:
    """Keras's own split of the housing data, scaled by its training rows."""
    with np.load(BOSTON) as arrays:
        x, y = arrays["x"], arrays["y"]
    order = np.arange(len(x))
    np.random.RandomState(113).shuffle(order)
    x, y, cut = x[order], y[order], int(0.8 * len(x))
    mean, scale = x[:cut].mean(axis=0), x[:cut].std(axis=0)
    write_split(layout, "train", (x[:cut] - mean) / scale, y[:cut])
    write_split(layout, "test", (x[cut:] - mean) / scale, y[cut:])
    write_scaler(layout.channel("train"), Scaler([cut] * x.shape[1], mean.tolist(), scale.tolist()))


def weights(model: Path) -> list[NDArray[np.float32]]:
    """The weights in a model.onnx, in order of their names."""
    tensors = sorted(onnx.load(model).graph.initializer, key=lambda tensor: tensor.name)
    return [np.asarray(numpy_helper.to_array(tensor)) for tensor in tensors]
