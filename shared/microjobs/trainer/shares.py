"""The data of a training among its processes: which rows are whose, and what they all have together.

`FullyReplicated` channels are the same on all hosts, and their rows are dealt out here. Of `ShardedByS3Key` channels
every host has files of its own, maybe none. Needs numpy.
"""

import dataclasses
import json
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from microjobs.errors import UserError
from microjobs.hyperparameters import TrainerHyperparameters
from microjobs.scaler import Scaler
from microjobs.trainer.batches import Batches
from microjobs.trainer.training import Array, TrainingData


class Group(Protocol):
    """The processes of a training, each with its rank below `world`, and a place among those of its host."""

    @property
    def rank(self) -> int: ...

    @property
    def world(self) -> int: ...

    @property
    def local_rank(self) -> int: ...

    @property
    def local_world(self) -> int: ...

    def gather(self, array: NDArray[Any], /) -> list[NDArray[Any]]:
        """The rows that every process has, by rank; there may be more in one than in another."""


class Shares:
    """One process's view of the data.

    data: its own rows of channels that are shared out by files, all rows of the others; equal in width everywhere.
    rows: of the training set, of all processes.

    Raises:
        UserError: hosts have rows of different width, or none has any.
    """

    def __init__(self, data: TrainingData, group: Group) -> None:
        self.group = group
        self.data = _completed(_of_process(data, group), group)
        own = len(self.data.x_train)
        self._rows = _numbers(own, group) if "train" in data.shares else None
        self.rows = own if self._rows is None else sum(self._rows)
        for split, rows in (("train", self.rows), ("test", sum(_numbers(len(self.test[0]), group)))):
            if rows == 0:
                raise UserError(f"no host has rows of x_{split}: give the channel {split!r} files with some")

    @property
    def mean_target(self) -> float:
        """Of all training rows."""
        y = self.data.y_train
        if self._rows is None:
            return float(y.mean())
        return float(np.sum(self.group.gather(y.sum(axis=0, dtype=np.float64)))) / self.rows

    def batches(self, hyperparameters: TrainerHyperparameters) -> Batches:
        """The steps of an epoch; batches count the rows of all processes."""
        rows_a_step = hyperparameters.rows_a_step(self.rows)
        return Batches(
            self.rows, rows_a_step, hyperparameters.seed, self.group.rank, self.group.world, shards=self._rows
        )

    @property
    def test(self) -> tuple[Array, Array]:
        """The test rows that this process tries: no two try the same."""
        x, y = self.data.x_test, self.data.y_test
        if "test" in self.data.shares:
            return x, y
        return x[self.group.rank :: self.group.world], y[self.group.rank :: self.group.world]

    def identity(self) -> dict[str, str]:
        """As `TrainingData.identity`, of the rows of all processes."""
        own = self.data.identity()
        if not self.data.shares:
            return own
        told = [json.loads(text) for text in _texts(json.dumps(own), self.group)]
        shared = {name for name in own if name.partition("_")[2] in self.data.shares}
        return {
            name: ", ".join(dict.fromkeys(one[name] for one in told)) if name in shared else own[name] for name in own
        }

    def together(self, on_train: Array, on_test: Array) -> tuple[TrainingData, Array, Array]:
        """Targets and predictions of all processes, from those for `data` of each; the first one's rows come first.

        Of the training rows x is not needed any more, but of a single feature for its picture.
        """
        data = self.data
        x_train, y_train, x_test, y_test = data.x_train, data.y_train, data.x_test, data.y_test
        if "train" in data.shares:
            y_train, on_train = self._all(y_train), self._all(on_train)
            x_train = self._all(x_train) if data.features == 1 else x_train
        if "test" in data.shares:
            x_test, y_test, on_test = self._all(x_test), self._all(y_test), self._all(on_test)
        whole = TrainingData(x_train, y_train, x_test, y_test, data.scaler)
        return whole, on_train, on_test

    def _all(self, array: Array) -> Array:
        return np.concatenate(self.group.gather(array))


def _of_process(data: TrainingData, group: Group) -> TrainingData:
    """Processes of one host share its files out among them, row by row."""
    mine = slice(group.local_rank, None, group.local_world)
    if "train" in data.shares:
        data = dataclasses.replace(data, x_train=data.x_train[mine], y_train=data.y_train[mine])
    if "test" in data.shares:
        data = dataclasses.replace(data, x_test=data.x_test[mine], y_test=data.y_test[mine])
    return data


def _completed(data: TrainingData, group: Group) -> TrainingData:
    """With what only other hosts may have: the scaler, which is one of the files, and how wide rows are."""
    if not data.shares:
        return data
    told = _texts(json.dumps(data.scaler and dataclasses.asdict(data.scaler)), group)
    found = next((content for text in told if (content := json.loads(text))), None)
    widths = sorted({width for x in (data.x_train, data.x_test) for width in _numbers(x.shape[1], group)} - {0})
    if len(widths) > 1:
        raise UserError(f"hosts have rows of {' and '.join(map(str, widths))} values: all must have as many")
    width = widths[0] if widths else 1
    return dataclasses.replace(
        data,
        x_train=data.x_train.reshape(-1, width),
        x_test=data.x_test.reshape(-1, width),
        scaler=Scaler(**found) if found else None,
    )


def _numbers(number: int, group: Group) -> list[int]:
    return [int(one[0]) for one in group.gather(np.array([number], np.int64))]


def _texts(text: str, group: Group) -> list[str]:
    gathered = group.gather(np.frombuffer(text.encode(), np.uint8))
    return [one.tobytes().decode() for one in gathered]
