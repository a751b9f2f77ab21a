"""Process groups whose processes are threads of the test."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from microjobs.trainer import group

T = TypeVar("T")
Array = NDArray[Any]
TIMEOUT_SECONDS = 60


@dataclass
class SharedArrays:
    """Arrays that the threads of one test share: one array per rank."""

    world_size: int
    arrays: dict[int, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.world_size, timeout=TIMEOUT_SECONDS)


@dataclass
class ThreadGroup(group.Group):
    """The process group as one of its threads uses it."""

    shared: SharedArrays
    rank: int
    local_rank: int = 0
    local_world_size: int = 1
    has_gpu: bool = False
    is_closed: bool = False

    def __post_init__(self) -> None:
        self.world_size = self.shared.world_size

    def _describe_devices(self) -> str:
        return "a thread"

    def _sum(self, values: Array) -> Array:
        self.shared.arrays[self.rank] = values
        self.shared.barrier.wait()
        total: Array = np.sum([self.shared.arrays[rank] for rank in range(self.world_size)], axis=0, dtype=values.dtype)
        self.shared.barrier.wait()
        return total

    def _close(self) -> None:
        self.is_closed = True


def run_processes(work: Callable[[ThreadGroup], T], world_size: int, local_world_size: int = 1) -> list[T]:
    """Call `work` in each process. Return its results in the order of the ranks."""
    shared, results = SharedArrays(world_size), dict[int, T]()

    def run(rank: int) -> None:
        results[rank] = work(ThreadGroup(shared, rank, rank % local_world_size, local_world_size))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(world_size)]
