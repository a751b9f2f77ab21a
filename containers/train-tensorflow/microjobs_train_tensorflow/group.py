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
    def device_count(self) -> int:
        """Number of devices of this host."""
        return int(self.strategy.num_replicas_in_sync) // self.world_size

    def take_first(self, value: Any) -> Any:
        """Return the value of this host's first device from a result that is the same on all devices."""
        return tf.nest.map_structure(lambda item: self.strategy.experimental_local_results(item)[0], value)

    def _describe_devices(self) -> str:
        kind = "GPU" if self.has_gpu else "CPU"
        return f"{self.device_count} {kind}s" if self.device_count > 1 else f"the {kind}"

    def _sum(self, values: NDArray[Any]) -> NDArray[Any]:
        # TensorFlow does not sum booleans and 8-bit integers.
        tensor = tf.constant(values.astype(np.int64) if values.dtype.kind in "biu" else values)
        if tensor.dtype not in self._sum_functions:  # the traced function takes arrays of any length
            signature = [tf.TensorSpec([None], tensor.dtype)]
            self._sum_functions[tensor.dtype] = tf.function(self._sum_over_devices, input_signature=signature)
        total = self._sum_functions[tensor.dtype](tf.reshape(tensor, [-1]))
        return np.asarray(total).astype(values.dtype).reshape(values.shape)

    def _sum_over_devices(self, value: tf.Tensor) -> tf.Tensor:
        def sum_on_device(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # The factor is 1 on the first device of each host and 0 on the others, so that each host counts once. The
            # multiplication also copies the value to the device, so that `all_reduce` gets one value per device.
            factor = tf.cast(context.replica_id_in_sync_group % self.device_count == 0, value.dtype)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value * factor)

        return self.take_first(self.strategy.run(sum_on_device, args=(value,)))

    def _close(self) -> None:
        worker.finish()  # this call waits, because other processes may still read data that this process has sent


def join() -> Group:
    """Join the group of this process. Call this function before TensorFlow computes anything: the first computation
    fixes its devices."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if worker.is_worker() and "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        resolver = strategy.cluster_resolver
        return Group(strategy, resolver.task_id, resolver.cluster_spec().num_tasks("worker"))
    return Group(tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy())
