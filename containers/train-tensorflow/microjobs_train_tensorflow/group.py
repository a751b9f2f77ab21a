"""The processes of one training, one a host, and the devices that each of them computes on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from microjobs import worker


@dataclass
class Group:
    """What a process does together with the others; with one process nothing is sent."""

    strategy: tf.distribute.Strategy
    rank: int = 0
    world: int = 1
    local_rank = 0
    local_world = 1

    def __post_init__(self) -> None:
        self._sums: dict[tf.DType, Any] = {}

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def devices(self) -> int:
        """On this host."""
        return int(self.strategy.num_replicas_in_sync) // self.world

    def describe(self) -> str:
        """The devices that are computed on, for the log."""
        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        names = f"{self.devices} {kind}s" if self.devices > 1 else f"the {kind}"
        return names if self.world == 1 else f"{names} of each of {self.world} hosts"

    def sum(self, *values: float) -> list[float]:
        """The sum over all processes of each value."""
        total = self.sum_arrays([np.asarray(values, np.float64)])[0]
        return [float(value) for value in total]

    def sum_arrays(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The sum over all processes of each array; shapes and types are the same in all of them."""
        if self.world == 1:
            return list(arrays)
        return [self._sum_array(array) for array in arrays]

    def share(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """What the first process has, to all, which have arrays of the same shapes and types."""
        return self.sum_arrays([array if self.is_first else np.zeros_like(array) for array in arrays])

    def share_bytes(self, content: bytes) -> bytes:
        """The first process's, to all."""
        if self.world == 1:
            return content
        length = int(self.sum(len(content) if self.is_first else 0)[0])
        own = np.frombuffer(content, np.uint8) if self.is_first else np.zeros(length, np.uint8)
        return self.share([own])[0].tobytes()

    def gather(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """The rows that every process has, by rank; there may be more in one than in another."""
        if self.world == 1:
            return [array]
        lengths = self.sum_arrays([np.eye(self.world, dtype=np.int64)[self.rank] * len(array)])[0]
        ends = np.cumsum(lengths)
        whole = np.zeros((ends[-1], *array.shape[1:]), array.dtype)
        whole[ends[self.rank] - len(array) : ends[self.rank]] = array
        return np.split(self.sum_arrays([whole])[0], ends[:-1])

    def leave(self) -> None:
        """Nobody leaves while the first still writes, nor while others still read what this process has sent them."""
        if self.world > 1:
            self.sum(0)
            worker.finish()

    def _sum_array(self, array: NDArray[Any]) -> NDArray[Any]:
        flat = tf.constant(array.astype(np.int64) if array.dtype.kind in "biu" else array)  # TensorFlow sums no bytes
        if flat.dtype not in self._sums:  # traced once for arrays of any length
            signature = [tf.TensorSpec([None], flat.dtype)]
            self._sums[flat.dtype] = tf.function(self._sum_everywhere, input_signature=signature)
        total = self._sums[flat.dtype](tf.reshape(flat, [-1]))
        return np.asarray(total).astype(array.dtype).reshape(array.shape)

    def _sum_everywhere(self, value: tf.Tensor) -> tf.Tensor:
        def on_device(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # A host counts once, however many devices it has. A copy, since an argument lies on no device yet.
            once = tf.cast(context.replica_id_in_sync_group % self.devices == 0, value.dtype)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value * once)

        return self.first(self.strategy.run(on_device, args=(value,)))

    def first(self, value: Any) -> Any:
        """What the first device of this host has of something that is the same on all."""
        return tf.nest.map_structure(lambda one: self.strategy.experimental_local_results(one)[0], value)


def join() -> Group:
    """The group of this process. Before anything is computed: TensorFlow settles then what it computes on."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if worker.in_worker() and "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        resolver = strategy.cluster_resolver
        return Group(strategy, resolver.task_id, resolver.cluster_spec().num_tasks("worker"))
    return Group(tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy())
