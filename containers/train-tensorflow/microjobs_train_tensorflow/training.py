"""Training of a Keras network. All hosts and devices run each step together."""

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from microjobs.stopping import StopRequest
from microjobs.trainer.batches import Indices, StepRows
from microjobs.trainer.data import Array, TrainingData
from microjobs.trainer.process_data import ProcessData

from .group import Group
from .hyperparameters import Hyperparameters
from .network import LOSSES, build_network, predict

SCALAR_SPEC = tf.TensorSpec([], tf.float32)
STEP_SIGNATURE = (tf.TensorSpec([None], tf.int64), SCALAR_SPEC, SCALAR_SPEC, SCALAR_SPEC)
"""Arguments of a step: indices of the rows, number of rows of all hosts, sum of losses, stop flag."""


class Training:
    """One host's part of the training; see `microjobs.trainer.framework.Training`."""

    checkpoint_file = "training.npz"

    def __init__(
        self,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        data: ProcessData,
        hyperparameters: Hyperparameters,
        group: Group,
        stop: StopRequest,
    ) -> None:
        self.network, self.optimizer, self.group, self.stop = network, optimizer, group, stop
        self.best_weights: list[NDArray[Any]] | None = None
        self._test = data.test_rows
        self._loss = LOSSES[hyperparameters.loss]
        # Rows are selected on the CPU, so that only the rows of a step are sent to the devices.
        with tf.device("CPU:0"):
            self._x, self._y = tf.constant(data.local_data.x_train), tf.constant(data.local_data.y_train)
        uses_xla = hyperparameters.compile and group.has_gpu
        self._gradients = (
            tf.function(self._compute_gradients, jit_compile=True) if uses_xla else self._compute_gradients
        )
        self._step = tf.function(self._step_on_all_devices, input_signature=STEP_SIGNATURE)
        steps = data.make_batches(hyperparameters).steps_per_epoch
        self._log = keras.callbacks.ProgbarLogger()
        self._log.set_params({"verbose": 2 if group.is_first else 0, "epochs": hyperparameters.epochs, "steps": steps})
        self._log.on_train_begin()

    def write(self, folder: Path) -> None:
        arrays = {f"variable-{number}": np.asarray(variable) for number, variable in enumerate(self._variables)}
        arrays |= {f"best-{number}": array for number, array in enumerate(self.best_weights or [])}
        np.savez(folder / self.checkpoint_file, allow_pickle=False, **arrays)

    def load(self, content: bytes) -> None:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            for number, variable in enumerate(self._variables):
                variable.assign(arrays[f"variable-{number}"])
            self.best_weights = [arrays[name] for name in arrays.files if name.startswith("best-")] or None

    @property
    def _variables(self) -> list[keras.Variable]:
        """Variables of the network, including Keras's random generators, and variables of the optimizer."""
        return [*self.network.variables, *self.optimizer.variables]

    def begin_epoch(self, epoch: int, order: Indices, loss: float) -> None:
        self._order, self._loss_sum = order, tf.constant(loss)
        self._should_stop = self.group.world_size == 1 and bool(self.stop)
        self._log.on_epoch_begin(epoch)

    def should_stop(self) -> bool:
        return self._should_stop

    def step(self, step: StepRows) -> None:
        row_indices, stop_flag = self._order[step.start : step.end], tf.constant(float(bool(self.stop)))
        self._loss_sum, stops = self._step(row_indices, tf.constant(float(step.total_rows)), self._loss_sum, stop_flag)
        # Hosts receive the signal at different times, but all stop after the same step.
        self._should_stop = bool(self.stop) if self.group.world_size == 1 else float(stops) > 0

    def _step_on_all_devices(
        self, row_indices: tf.Tensor, total_rows: tf.Tensor, loss_sum: tf.Tensor, stop_flag: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Run one step on all hosts. Return the sum of losses so far, and the sum of the stop flags of all devices."""
        results = self.group.strategy.run(self._step_on_device, args=(row_indices, total_rows, stop_flag))
        *gradients, loss, stops = self.group.take_first(results)
        # The optimizer runs once, not once per device, so that it clips the norm of the summed gradients.
        self.optimizer.apply(gradients, self.network.trainable_variables)
        return loss_sum + loss, stops

    def _step_on_device(self, row_indices: tf.Tensor, total_rows: tf.Tensor, stop_flag: tf.Tensor) -> list[tf.Tensor]:
        """Return the sums of gradients, losses and stop flags over all devices of all hosts."""
        context = tf.distribute.get_replica_context()
        with tf.device("CPU:0"):
            device = context.replica_id_in_sync_group % self.group.device_count
            device_indices = row_indices[device :: self.group.device_count]
            x, y = tf.gather(self._x, device_indices), tf.gather(self._y, device_indices)
        results = [*self._gradients(x, y, total_rows), tf.identity(stop_flag)]
        sums: list[tf.Tensor] = context.all_reduce(tf.distribute.ReduceOp.SUM, results)
        return sums

    def _compute_gradients(self, x: tf.Tensor, y: tf.Tensor, total_rows: tf.Tensor) -> list[tf.Tensor]:
        """Return the contribution of these rows to the gradients of the step's mean loss, and the sum of their
        losses."""
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self._loss(y, self.network(x, training=True)))
            # `total_rows` counts the rows of all devices, because devices can have different numbers of rows, or none
            mean = loss / total_rows
        return [*tape.gradient(mean, self.network.trainable_variables), loss]

    def compute_epoch_loss(self) -> float:
        return float(self._loss_sum)

    def compute_test_loss(self) -> float:
        x, y = self._test
        losses = np.asarray(self._loss(y, predict(self.network, x)), np.float64)
        total, rows = self.group.sum(losses.sum(), len(x))
        return total / rows

    def log_epoch(self, epoch: int, train_loss: float, test_loss: float) -> None:
        self._log.on_epoch_end(epoch, {"loss": train_loss, "val_loss": test_loss})

    def keep_best(self) -> None:
        self.best_weights = self.network.get_weights()

    def use_best_weights(self) -> None:
        # The exported network is new and has no connections to other hosts or devices, so that the model can be loaded
        # anywhere.
        weights = self.network.get_weights() if self.best_weights is None else self.best_weights
        self.network = build_network(int(self._x.shape[1]))
        self.network.set_weights(weights)

    def predict(self, x: Array) -> Array:
        return predict(self.network, x)

    def export(self, data: TrainingData, folder: Path) -> None:
        from .export import save_onnx, save_savedmodel

        save_savedmodel(self.network, data.scaler, folder, has_raw=data.columns is None and data.pipeline is None)
        save_onnx(self.network, folder)
