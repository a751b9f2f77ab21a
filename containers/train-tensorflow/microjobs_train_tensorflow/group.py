"""The processes of one training job, one per host, and the devices of each process."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from microjobs import worker
from microjobs.trainer import group


@dataclass
class Group(group.Group):
    """The workers of a tf.distribute strategy."""

    strategy: tf.distribute.Strategy
    rank: int = 0
    world_size: int = 1
    local_rank = 0
    local_world_size = 1

    def __post_init__(self) -> None:
        self._sum_functions: dict[tf.DType, Any] = {}

    @property
    def has_gpu(self) -> bool:
        return bool(tf.config.list_physical_devices("GPU"))

    @property
    def devices(self) -> int:
        """Number of devices of this host."""
        return int(self.strategy.num_replicas_in_sync) // self.world_size

    def take_first(self, value: Any) -> Any:
        """Return the value of this host's first device from a result that is the same on all devices."""
        return tf.nest.map_structure(lambda item: self.strategy.experimental_local_results(item)[0], value)

    def _describe_devices(self) -> str:
        kind = "GPU" if self.has_gpu else "CPU"
        return f"{self.devices} {kind}s" if self.devices > 1 else f"the {kind}"

    def _sum(self, values: NDArray[Any]) -> NDArray[Any]:
        # TensorFlow does not sum bytes.
        flat = tf.constant(values.astype(np.int64) if values.dtype.kind in "biu" else values)
        if flat.dtype not in self._sum_functions:  # traced once for arrays of any length
            signature = [tf.TensorSpec([None], flat.dtype)]
            self._sum_functions[flat.dtype] = tf.function(self._sum_everywhere, input_signature=signature)
        total = self._sum_functions[flat.dtype](tf.reshape(flat, [-1]))
        return np.asarray(total).astype(values.dtype).reshape(values.shape)

    def _sum_everywhere(self, value: tf.Tensor) -> tf.Tensor:
        def sum_on_device(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # Each host counts once, however many devices it has. The product copies the value to the device.
            is_counted = tf.cast(context.replica_id_in_sync_group % self.devices == 0, value.dtype)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value * is_counted)

        return self.take_first(self.strategy.run(sum_on_device, args=(value,)))

    def _close(self) -> None:
        worker.finish()  # waits, because other processes may still read data that this process has sent


def join() -> Group:
    """Join the group of this process. The first computation fixes TensorFlow's devices, so call this before it."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if worker.is_worker() and "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        resolver = strategy.cluster_resolver
        return Group(strategy, resolver.task_id, resolver.cluster_spec().num_tasks("worker"))
    return Group(tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy())
