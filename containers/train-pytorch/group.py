"""The processes of one training, each with a device of its own: a single one, or those that torchrun started."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from microjobs.stopping import StopRequest
from microjobs.worker import in_worker


@dataclass(frozen=True)
class Group:
    """What a process does together with the others; with one process nothing is sent."""

    device: torch.device
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def describe(self) -> str:
        """The devices that are computed on, for the log."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        each = name if self.local_world == 1 else f"{self.local_world} times {name}"
        hosts = self.world // self.local_world
        return each if hosts == 1 else f"{each} of each of {hosts} hosts"

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network with the mean of all processes' gradients; it starts everywhere as it is in the first one."""
        return network if self.world == 1 else nn.parallel.DistributedDataParallel(network)

    def ask(self, stop: StopRequest) -> Callable[[], bool]:
        """Ask all processes whether to stop; what is returned tells, and is the same in all of them.

        The answers travel while the next step is computed: waiting for them took a third of a small step.
        """
        if self.world == 1:
            return stop.__bool__
        count = torch.tensor(float(bool(stop)), device=self.device)
        work = dist.all_reduce(count, async_op=True)

        def answer() -> bool:
            work.wait()
            return bool(count.item() > 0)

        return answer

    def sum(self, *values: float) -> list[float]:
        """The sum over all processes of each value."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def share(self, value: Any) -> Any:
        """What the first process has, to all."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """The rows that every process has, by rank; there may be more in one than in another."""
        if self.world == 1:
            return [array]
        arrays: list[Any] = [None] * self.world
        dist.all_gather_object(arrays, array)
        return arrays

    def leave(self) -> None:
        """Close the connections once all are done: nobody leaves while the first still writes."""
        if self.world > 1:
            self.sum(0)
            dist.destroy_process_group()


def join() -> Group:
    """The group of this process; several find each other by the variables that torchrun sets."""
    worker = in_worker() and "RANK" in os.environ
    rank, world, local_rank, local_world = (
        int(os.environ[name]) if worker else usual
        for name, usual in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
    )
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(device, rank, world, local_rank, local_world)
