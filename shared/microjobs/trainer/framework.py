"""Interface of a deep learning framework to the trainer."""

from pathlib import Path
from typing import Protocol

from microjobs.stopping import StopRequest
from microjobs.trainer.batches import Indices, StepRows
from microjobs.trainer.data import Array, TrainingData
from microjobs.trainer.group import Group
from microjobs.trainer.process_data import ProcessData

HIDDEN_UNITS = (128, 64)
"""Units of the two hidden layers of the multilayer perceptron, the same in both frameworks."""
MAX_GRADIENT_NORM = 20.0
"""Maximum norm of the gradients. Targets are not scaled, so gradients are large. Without this limit, plain SGD diverges
on the housing data at learning rates of 0.02 or more, which the tuning job of the workflow `housing` tries."""


class Training(Protocol):
    """The network and the optimizer of one process.

    For each epoch, call `begin_epoch`, then `should_stop` and `step` for each step, then `compute_epoch_loss`.
    """

    checkpoint_file: str
    """Name of the file that `write` writes."""

    @property
    def best_weights(self) -> object | None:
        """The weights that `keep_best` copied; None before the first copy."""

    def write(self, folder: Path) -> None:
        """Write the state that determines the next step: weights, optimizer, best weights, random generators."""

    def load(self, content: bytes) -> None:
        """Restore the state from the content of a file that `write` wrote."""

    def begin_epoch(self, epoch: int, order: Indices, loss: float) -> None:
        """Prepare for the rest of an epoch.

        Args:
            order: indices of this process's training rows, in the order of the epoch.
            loss: sum of the losses of all rows, over the completed steps of this epoch.
        """

    def should_stop(self) -> bool:
        """Return whether to stop before the next step; the result is the same in all processes."""

    def step(self, step: StepRows) -> None:
        """Update the weights once, together with all other processes."""

    def compute_epoch_loss(self) -> float:
        """Return the sum of the losses of all rows, over all processes and all completed steps of the epoch."""

    def compute_test_loss(self) -> float:
        """Return the mean loss of the test rows of all processes."""

    def log_epoch(self, epoch: int, train_loss: float, test_loss: float) -> None: ...

    def keep_best(self) -> None:
        """Copy the current weights."""

    def use_best_weights(self) -> None:
        """Replace the current weights with the best weights, if any. No training follows."""

    def predict(self, x: Array) -> Array:
        """Return predictions of shape (rows, 1)."""

    def export(self, data: TrainingData, folder: Path) -> None:
        """Write the network's files into a model folder, including `model.onnx`."""


class Framework(Protocol):
    """A framework with its devices and its connections to other processes.

    name: name of the framework in logs and checkpoints. The manifest of the bundle contains it in lower case.
    """

    name: str
    version: str

    @property
    def group(self) -> Group: ...

    def create_training(self, data: ProcessData, stop: StopRequest) -> Training:
        """Return the training of a new network, which is the same in every process."""
