"""The training loop: a step of all hosts and devices together, a test each epoch, and a checkpoint when it is time."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from microjobs.stopping import StopRequest
from microjobs.trainer.batches import Batches
from microjobs.trainer.checkpoints import Checkpoints
from microjobs.trainer.epochs import Epochs
from microjobs.trainer.training import Array

from .acceleration import compiled
from .group import Group
from .hyperparameters import Hyperparameters
from .network import LOSSES
from .state import State

BLOCK_ROWS = 8192
"""Rows that are predicted at a time."""

Rows = tuple[Array, Array]

NUMBER = tf.TensorSpec([], tf.float32)
STEP = (tf.TensorSpec([None], tf.int64), NUMBER, NUMBER, NUMBER)
"""What a step takes: the rows' numbers, how many of all hosts they are part of, the loss so far, and the stop flag."""


@dataclass
class Fit(Epochs):
    """One run of the training.

    train, test: this host's rows; of test rows that all hosts have, its share.
    batches: which of the training rows each step takes.
    """

    state: State
    train: Rows
    test: Rows
    batches: Batches
    hyperparameters: Hyperparameters
    stop: StopRequest
    checkpoints: Checkpoints
    group: Group

    def __post_init__(self) -> None:
        self._loss = LOSSES[self.hyperparameters.loss]
        self._gradients = compiled(self._gradients_of, self.hyperparameters)
        self._steps = self.batches.steps()
        with tf.device("CPU:0"):  # where rows are picked: only a step's rows go to the devices
            self._x, self._y = (tf.constant(array) for array in self.train)
        self._step = tf.function(self._step_everywhere, input_signature=STEP)
        self._log = keras.callbacks.ProgbarLogger()
        verbose = 2 if self.group.is_first else 0
        self._log.set_params({"verbose": verbose, "epochs": self.hyperparameters.epochs, "steps": len(self._steps)})
        self._log.on_train_begin()

    def _train(self) -> bool:
        """Train what is left of the epoch; false if a stop came before its end."""
        progress = self.state.progress
        order, total = self.batches.order(progress.epoch), tf.constant(progress.loss)
        stopped = self.group.world == 1 and bool(self.stop)
        self._log.on_epoch_begin(progress.epoch)
        for step in self._steps[progress.step :]:
            if stopped:
                break
            stop = tf.constant(float(bool(self.stop)))
            total, stops = self._step(order[step.first : step.last], tf.constant(float(step.of_all)), total, stop)
            progress.step, progress.rows = progress.step + 1, progress.rows + step.of_all
            # Hosts are not asked to stop at the same instant: they stop after the step in which one of them was.
            stopped = bool(self.stop) if self.group.world == 1 else float(stops) > 0
        progress.loss = float(total)
        return not stopped or progress.step == len(self._steps)

    def _step_everywhere(
        self, rows: tf.Tensor, of_all: tf.Tensor, total: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """One step of all hosts: the sum of the losses so far, and how many hosts are asked to stop."""
        summed = self.group.first(self.group.strategy.run(self._on_device, args=(rows, of_all, stop)))
        *gradients, loss, stops = summed
        # Here, and not on each device, so that their norm is bounded when they are summed up.
        self.state.optimizer.apply(gradients, self.state.network.trainable_variables)
        return total + loss, stops

    def _on_device(self, rows: tf.Tensor, of_all: tf.Tensor, stop: tf.Tensor) -> list[tf.Tensor]:
        """The sums over all devices of all hosts of the gradients, the losses and the flag."""
        context = tf.distribute.get_replica_context()
        with tf.device("CPU:0"):
            mine = rows[context.replica_id_in_sync_group % self.group.devices :: self.group.devices]
            x, y = tf.gather(self._x, mine), tf.gather(self._y, mine)
        summed: list[tf.Tensor] = context.all_reduce(
            tf.distribute.ReduceOp.SUM, [*self._gradients(x, y, of_all), tf.identity(stop)]
        )
        return summed

    def _gradients_of(self, x: tf.Tensor, y: tf.Tensor, of_all: tf.Tensor) -> list[tf.Tensor]:
        """What these rows add to the gradients of the mean loss of all hosts' rows, and the sum of their losses."""
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self._loss(y, self.state.network(x, training=True)))
            mean = loss / of_all  # a share of a batch may be smaller than others, or empty
        return [*tape.gradient(mean, self.state.network.trainable_variables), loss]

    def _end_epoch(self) -> None:
        progress = self.state.progress
        epoch, losses = progress.epoch, (progress.loss / progress.rows, self._test_loss())
        progress.history.add(epoch, *losses)
        if self.hyperparameters.best_weights and progress.history.best_epoch == epoch:
            self.state.keep_best()
        self._log.on_epoch_end(epoch, dict(zip(("loss", "val_loss"), losses, strict=True)))
        progress.end_epoch()

    def _test_loss(self) -> float:
        """Over the test rows of all hosts."""
        x, y = self.test
        losses = np.asarray(self._loss(y, predict(self.state.network, x)), np.float64)
        total, rows = self.group.sum(losses.sum(), len(x))
        return total / rows


def predict(network: keras.Model, x: Array) -> Array:
    """Predictions of shape (rows, 1)."""
    blocks = [_infer(network, x[start : start + BLOCK_ROWS]) for start in range(0, len(x), BLOCK_ROWS)]
    return np.concatenate([np.empty((0, 1), np.float32), *blocks])


@tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # the host has no TensorFlow
def _infer(network: keras.Model, x: tf.Tensor) -> tf.Tensor:
    return network(x, training=False)
