"""The training and test data of a job: reads the channels `train` and `test`. Needs numpy."""

import hashlib
import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import load_host_shards, load_split
from microjobs.bundle import PIPELINE_FILE
from microjobs.columns import FILE_NAME as COLUMNS_FILE
from microjobs.columns import FittedColumns, read_columns
from microjobs.contract import Layout, read_input_data_config, read_training_resource_config
from microjobs.errors import UserError
from microjobs.scaler import FILE_NAME as SCALER_FILE
from microjobs.scaler import Scaler, read_scaler

Array = NDArray[np.float32]

SAMPLE_ROWS = 1024
"""Number of test rows with which a saved model is checked."""

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class TrainingData:
    """Both channels in memory: x of shape (rows, features), y of shape (rows, 1), and how preprocessing made x.

    scaler: how x was scaled; None if it was not scaled.
    columns: how x was made from the columns of tables; None if it was not.
    pipeline: content of pipeline.onnx, which made x from tables; None if there is no such file. At most one of
        `scaler`, `columns` and `pipeline` is not None.
    sharded_splits: channels whose rows differ between hosts (`ShardedByS3Key`). A host without rows has x of shape
        (0, 0).
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    scaler: Scaler | None
    sharded_splits: frozenset[str] = frozenset()
    columns: FittedColumns | None = None
    pipeline: bytes | None = None

    @property
    def features(self) -> int:
        return int(self.x_train.shape[1])

    @property
    def sample(self) -> Array:
        """The first test rows, with which a saved model is checked."""
        return self.x_test[:SAMPLE_ROWS]

    def fingerprint(self) -> dict[str, str]:
        """Return the shape and the digest of each array, independent of the division of rows into files."""
        arrays = {"x_train": self.x_train, "y_train": self.y_train, "x_test": self.x_test, "y_test": self.y_test}
        return {name: f"{array.shape} sha256:{_compute_digest(array)}" for name, array in arrays.items()}


def _compute_digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:16]


def load_data(layout: Layout) -> TrainingData:
    """Read all files of the channels `train` and `test` that this host has.

    Raises:
        UserError: a channel or a file is missing or invalid, or the channels do not match each other.
    """
    sharded_channels = _find_sharded_channels(layout)
    x_train, y_train = _load_channel(layout, "train", sharded_channels)
    x_test, y_test = _load_channel(layout, "test", sharded_channels)
    folder = layout.channel("train")
    path = folder / PIPELINE_FILE
    pipeline = path.read_bytes() if path.is_file() else None
    scaler, columns = read_scaler(folder), read_columns(folder)
    data = TrainingData(x_train, y_train, x_test, y_test, scaler, sharded_channels, columns, pipeline)
    _check_preprocessing_files(data)
    _check_widths(data)
    logger.info("%d training rows, %d test rows, %d features", len(x_train), len(x_test), data.features)
    return data


def _find_sharded_channels(layout: Layout) -> frozenset[str]:
    if len(read_training_resource_config(layout).hosts) == 1:
        return frozenset()
    channels = read_input_data_config(layout).items()
    return frozenset(name for name, channel in channels if channel.distribution == "ShardedByS3Key")


def _load_channel(layout: Layout, name: str, sharded_channels: frozenset[str]) -> tuple[Array, Array]:
    folder = layout.channel(name)
    if name in sharded_channels:
        return load_host_shards(folder, name)
    if not folder.is_dir():
        raise UserError(f"channel {name!r} is missing: give the job an input with x_{name}.npy and y_{name}.npy")
    return load_split(folder, name)


def _check_widths(data: TrainingData) -> None:
    width = data.x_test.shape[1]
    if width != data.features and len(data.x_train) and len(data.x_test):
        raise UserError(
            f"x_train has rows of length {data.features}, but x_test has rows of length {width}: "
            "preprocess both in the same job"
        )
    for name, features in (
        (SCALER_FILE, data.scaler and data.scaler.features),
        (COLUMNS_FILE, data.columns and len(data.columns.feature_names)),
    ):
        if features is not None and features != data.features and len(data.x_train):
            raise UserError(
                f"{name} of channel train has {features} features, but x_train has {data.features}: "
                "take both from the same preprocess job"
            )


def _check_preprocessing_files(data: TrainingData) -> None:
    """Raise UserError if the channel has several files that state how x was made. One job writes only one of them."""
    contents = {SCALER_FILE: data.scaler, COLUMNS_FILE: data.columns, PIPELINE_FILE: data.pipeline}
    names = [name for name, content in contents.items() if content is not None]
    if len(names) > 1:
        raise UserError(f"channel train has {' and '.join(names)}: take its files from a single processing job")
