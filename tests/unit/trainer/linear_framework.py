"""A framework in NumPy: linear regression by gradient descent."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from microjobs.stopping import StopRequest
from microjobs.trainer.batches import Indices, StepRows
from microjobs.trainer.data import Array, TrainingData
from microjobs.trainer.group import Group
from microjobs.trainer.hyperparameters import TrainerHyperparameters
from microjobs.trainer.process_data import ProcessData
from tests.bundles import write_linear_bundle
from tests.unit.trainer.processes import SharedArrays, ThreadGroup


@dataclass
class LinearTraining:
    """The training of a linear model. The weights include the bias.

    stop_after_steps: number of steps after which a stop signal arrives; None for never.
    logged_epochs: the number, the training loss and the test loss of each logged epoch.
    """

    data: ProcessData
    hyperparameters: TrainerHyperparameters
    group: Group
    stop: StopRequest
    stop_after_steps: int | None = None
    checkpoint_file = "weights.json"
    best_weights: list[float] | None = None
    steps: int = 0
    logged_epochs: list[tuple[int, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weights = np.zeros(self.data.local_data.features + 1)
        self.weights[-1] = self.data.mean_target
        self._x, self._y = _append_ones(self.data.local_data.x_train), self.data.local_data.y_train[:, 0]

    def write(self, folder: Path) -> None:
        content = {"weights": self.weights.tolist(), "best": self.best_weights}
        (folder / self.checkpoint_file).write_text(json.dumps(content))

    def load(self, content: bytes) -> None:
        loaded = json.loads(content)
        self.weights, self.best_weights = np.array(loaded["weights"]), loaded["best"]

    def begin_epoch(self, _epoch: int, order: Indices, loss: float) -> None:
        self._order, self._loss = order, loss if self.group.is_first else 0.0

    def should_stop(self) -> bool:
        if self.steps == self.stop_after_steps:
            self.stop.signal_number = 15
        return self.group.sum(bool(self.stop))[0] > 0

    def step(self, step: StepRows) -> None:
        rows = self._order[step.start : step.end]
        error = self._x[rows] @ self.weights - self._y[rows]
        gradient = self.group.sum(*(self._x[rows].T @ error * 2 / step.total_rows).tolist())
        self.weights -= self.hyperparameters.learning_rate * np.array(gradient)
        self._loss += float(error @ error)
        self.steps += 1

    def compute_epoch_loss(self) -> float:
        return self.group.sum(self._loss)[0]

    def compute_test_loss(self) -> float:
        x, y = self.data.test_rows
        error = _append_ones(x) @ self.weights - y[:, 0]
        loss, rows = self.group.sum(float(error @ error), len(x))
        return loss / rows

    def log_epoch(self, epoch: int, train_loss: float, test_loss: float) -> None:
        self.logged_epochs.append((epoch, train_loss, test_loss))

    def keep_best(self) -> None:
        self.best_weights = self.weights.tolist()

    def use_best_weights(self) -> None:
        if self.best_weights is not None:
            self.weights = np.array(self.best_weights)

    def predict(self, x: Array) -> Array:
        return (_append_ones(x) @ self.weights)[:, np.newaxis].astype(np.float32)

    def export(self, _data: TrainingData, folder: Path) -> None:
        write_linear_bundle(folder, self.weights[:-1], self.weights[-1])


def _append_ones(x: Array) -> Array:
    return np.column_stack([x, np.ones(len(x))])


@dataclass
class LinearFramework:
    """The framework, as the trainer calls it. `training` is the latest training that it has created."""

    hyperparameters: TrainerHyperparameters
    group: Group = field(default_factory=lambda: ThreadGroup(SharedArrays(1), rank=0))
    version: str = "1.0+cpu"
    stop_after_steps: int | None = None
    name = "Linear"

    def create_training(self, data: ProcessData, stop: StopRequest) -> LinearTraining:
        self.training = LinearTraining(data, self.hyperparameters, self.group, stop, self.stop_after_steps)
        return self.training
