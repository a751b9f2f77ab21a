"""The processes of one training job and the messages between them."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Group(ABC):
    """All processes of a training job, from the point of view of one process. A single process sends nothing.

    rank: number of this process, from 0 to `world_size` - 1.
    local_rank: number of this process among the processes of this host.
    local_world_size: number of processes of this host.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    @abstractmethod
    def has_gpu(self) -> bool: ...

    def describe(self) -> str:
        """Return a description of the devices of all hosts, for the log."""
        hosts = self.world_size // self.local_world_size
        devices = self._describe_devices()
        return devices if hosts == 1 else f"{devices} of each of {hosts} hosts"

    def sum(self, *values: float) -> list[float]:
        """Return the sum of each value over all processes."""
        numbers = np.asarray(values, np.float64)
        return [float(value) for value in (numbers if self.world_size == 1 else self._sum(numbers))]

    def broadcast_bytes(self, content: bytes) -> bytes:
        """Return the content of the first process in all processes. The content of other processes is ignored."""
        return self.gather(np.frombuffer(content if self.is_first else b"", np.uint8))[0].tobytes()

    def gather(self, array: Array) -> list[Array]:
        """Return the arrays of all processes in the order of their ranks; only their numbers of rows may differ.

        The result is a sum of arrays that are 0 except in the rows of one process. Sums are fast in all frameworks, and
        need no pickled objects from the network.
        """
        if self.world_size == 1:
            return [array]
        lengths = self._sum(np.eye(self.world_size, dtype=np.int64)[self.rank] * len(array))
        ends = np.cumsum(lengths)
        padded_array = np.zeros((ends[-1], *array.shape[1:]), array.dtype)
        padded_array[ends[self.rank] - len(array) : ends[self.rank]] = array
        return np.split(self._sum(padded_array), ends[:-1])

    def leave(self) -> None:
        """Wait until all processes have called this method, then close the connections.

        The first process calls it after its last write.
        """
        if self.world_size > 1:
            self.sum(0)
            self._close()

    @abstractmethod
    def _describe_devices(self) -> str:
        """Return the devices of this host."""

    @abstractmethod
    def _sum(self, values: Array) -> Array:
        """Return the sum of the arrays of all processes; these arrays have the same shape and type."""

    @abstractmethod
    def _close(self) -> None: ...
