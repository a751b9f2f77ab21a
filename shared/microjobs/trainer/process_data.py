"""Splits training data across the processes of a job.

All hosts have the same files of a `FullyReplicated` channel, and all processes of the job divide the rows. Each host
has different files of a `ShardedByS3Key` channel, or none, and the processes of the host divide these rows. This module
needs numpy.
"""

import dataclasses
import json
from typing import Any

import numpy as np

from microjobs.columns import parse_columns
from microjobs.errors import UserError
from microjobs.scaler import Scaler
from microjobs.trainer.batches import Batches
from microjobs.trainer.data import Array, TrainingData
from microjobs.trainer.group import Group
from microjobs.trainer.hyperparameters import TrainerHyperparameters


class ProcessData:
    """The training and test data of one process.

    local_data: this process's rows of sharded channels, and all rows of other channels; x has the same width in every
        process.
    rows: number of training rows in all processes.

    Raises:
        UserError: the widths of rows differ between hosts, or no host has rows.
    """

    def __init__(self, data: TrainingData, group: Group) -> None:
        self.group = group
        self.local_data = _share_preprocessing_and_width(_take_local_rows(data, group), group)
        local_rows = len(self.local_data.x_train)
        self._shard_sizes = _gather_int(local_rows, group) if "train" in data.sharded_splits else None
        self.rows = local_rows if self._shard_sizes is None else sum(self._shard_sizes)
        test_row_count = sum(_gather_int(len(self.test_rows[0]), group))
        for split, rows in (("train", self.rows), ("test", test_row_count)):
            if rows == 0:
                raise UserError(f"x_{split} is empty on every host; add data to channel {split!r}")

    @property
    def mean_target(self) -> float:
        """Mean target of the training rows of all processes."""
        y = self.local_data.y_train
        if self._shard_sizes is None:
            return float(y.mean())
        return float(np.sum(self.group.gather(y.sum(axis=0, dtype=np.float64)))) / self.rows

    def make_batches(self, hyperparameters: TrainerHyperparameters) -> Batches:
        """Return this process's part of the batches; the batch size counts the rows of all processes."""
        rows_per_step = hyperparameters.rows_per_step(self.rows)
        rank, world_size = self.group.rank, self.group.world_size
        return Batches(self.rows, rows_per_step, hyperparameters.seed, rank, world_size, self._shard_sizes)

    @property
    def test_rows(self) -> tuple[Array, Array]:
        """x and y of the test rows of this process. Each test row belongs to one process."""
        x, y = self.local_data.x_test, self.local_data.y_test
        if "test" in self.local_data.sharded_splits:
            return x, y
        return x[self.group.rank :: self.group.world_size], y[self.group.rank :: self.group.world_size]

    def fingerprint(self) -> dict[str, str]:
        """Return `TrainingData.fingerprint` of the rows of all processes."""
        local = self.local_data.fingerprint()
        if not self.local_data.sharded_splits:
            return local
        fingerprints = [json.loads(text) for text in _gather_text(json.dumps(local), self.group)]
        sharded_names = {name for name in local if name.partition("_")[2] in self.local_data.sharded_splits}
        return {
            name: ", ".join(dict.fromkeys(item[name] for item in fingerprints))
            if name in sharded_names
            else local[name]
            for name in local
        }

    def gather_results(self, train_predictions: Array, test_predictions: Array) -> tuple[TrainingData, Array, Array]:
        """Return the data and the predictions of all processes, in the order of the ranks.

        x_train is gathered only for models with one feature, because only their plot needs it.
        """
        data = self.local_data
        x_train, y_train, x_test, y_test = data.x_train, data.y_train, data.x_test, data.y_test
        if "train" in data.sharded_splits:
            y_train, train_predictions = self._gather(y_train), self._gather(train_predictions)
            x_train = self._gather(x_train) if data.features == 1 else x_train
        if "test" in data.sharded_splits:
            x_test, y_test, test_predictions = map(self._gather, (x_test, y_test, test_predictions))
        all_data = TrainingData(
            x_train, y_train, x_test, y_test, data.scaler, columns=data.columns, pipeline=data.pipeline
        )
        return all_data, train_predictions, test_predictions

    def _gather(self, array: Array) -> Array:
        return np.concatenate(self.group.gather(array))


def _take_local_rows(data: TrainingData, group: Group) -> TrainingData:
    """Return this process's part of the rows that only this host has, and all rows that every host has."""
    local_rows = slice(group.local_rank, None, group.local_world_size)
    if "train" in data.sharded_splits:
        data = dataclasses.replace(data, x_train=data.x_train[local_rows], y_train=data.y_train[local_rows])
    if "test" in data.sharded_splits:
        data = dataclasses.replace(data, x_test=data.x_test[local_rows], y_test=data.y_test[local_rows])
    return data


def _share_preprocessing_and_width(data: TrainingData, group: Group) -> TrainingData:
    """If only some hosts have the scaler, the columns, the pipeline or the width of x, send these values to all
    processes."""
    if not data.sharded_splits:
        return data
    scaler = _find_first_json(data.scaler and dataclasses.asdict(data.scaler), group)
    columns = _find_first_json(data.columns and dataclasses.asdict(data.columns), group)
    pipeline = _find_first_json(data.pipeline and data.pipeline.hex(), group)
    widths = sorted({width for x in (data.x_train, data.x_test) for width in _gather_int(x.shape[1], group)} - {0})
    if len(widths) > 1:
        raise UserError(f"x arrays have the widths {widths} on different hosts: preprocess all hosts' data in one job")
    width = widths[0] if widths else 1
    return dataclasses.replace(
        data,
        x_train=data.x_train.reshape(-1, width),
        x_test=data.x_test.reshape(-1, width),
        scaler=Scaler(**scaler) if scaler else None,
        columns=parse_columns(columns) if columns else None,
        pipeline=bytes.fromhex(pipeline) if pipeline else None,
    )


def _find_first_json(content: Any, group: Group) -> Any:
    """Return the content of the first process that has content; None if no process has content."""
    texts = _gather_text(json.dumps(content), group)
    return next((value for text in texts if (value := json.loads(text))), None)


def _gather_int(number: int, group: Group) -> list[int]:
    return [int(item[0]) for item in group.gather(np.array([number], np.int64))]


def _gather_text(text: str, group: Group) -> list[str]:
    return [item.tobytes().decode() for item in group.gather(np.frombuffer(text.encode(), np.uint8))]
