"""The processes of one training, each with a device of its own: a single one, or those that torchrun started."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
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

    def share_bytes(self, content: bytes) -> bytes:
        """The first process's bytes, in all processes."""
        if self.world == 1:
            return content
        length = torch.tensor([len(content)], device=self.device)
        dist.broadcast(length, src=0)
        shared = self._tensor(content if self.is_first else bytes(int(length)))
        dist.broadcast(shared, src=0)
        received: bytes = shared.cpu().numpy().tobytes()
        return received

    def gather(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """The rows that every process has, by rank; there may be more in one than in another.

        Not by PyTorch's functions for objects, which unpickle what comes over the network.
        """
        if self.world == 1:
            return [array]
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        gathered = self._gather_bytes(file.getvalue())
        return [np.load(io.BytesIO(content), allow_pickle=False) for content in gathered]

    def _gather_bytes(self, content: bytes) -> list[bytes]:
        sizes = self._gather_tensors(torch.tensor([len(content)], device=self.device))
        longest = max(int(size) for size in sizes)
        gathered = self._gather_tensors(self._tensor(content.ljust(longest, b"\0")))
        return [one[: int(size)].cpu().numpy().tobytes() for one, size in zip(gathered, sizes, strict=True)]

    def _gather_tensors(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of all processes, which have the same shape."""
        gathered = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(gathered, tensor)
        return gathered

    def _tensor(self, content: bytes) -> torch.Tensor:
        return torch.frombuffer(bytearray(content), dtype=torch.uint8).to(self.device)

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
