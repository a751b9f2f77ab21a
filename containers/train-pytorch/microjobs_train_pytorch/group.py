"""The processes of one training job, one per device: a single one, or those that torchrun started."""

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
from microjobs.trainer import group
from microjobs.worker import in_worker


@dataclass(frozen=True)
class Group(group.Group):
    """The process group of torch.distributed."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    def parallel(self, network: nn.Module) -> nn.Module:
        """Return the network with the mean gradients of all processes; it starts with the weights of the first one."""
        return network if self.world_size == 1 else nn.parallel.DistributedDataParallel(network)

    def request_stop(self, stop: StopRequest) -> Callable[[], bool]:
        """Start to ask all processes whether to stop. Return a function that returns the answer, the same in all.

        The messages travel while the next step is computed: to wait for them took a third of the time of a small step.
        """
        if self.world_size == 1:
            return stop.__bool__
        count = torch.tensor(float(bool(stop)), device=self.device)
        work = dist.all_reduce(count, async_op=True)

        def read() -> bool:
            work.wait()
            return bool(count.item() > 0)

        return read

    def _describe_devices(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        return name if self.local_world_size == 1 else f"{self.local_world_size} times {name}"

    def _sum(self, values: NDArray[np.float64]) -> NDArray[Any]:
        total = torch.from_numpy(values).to(self.device)
        dist.all_reduce(total)
        result: NDArray[Any] = total.cpu().numpy()
        return result

    def _share_bytes(self, content: bytes) -> bytes:
        length = torch.tensor([len(content)], device=self.device)
        dist.broadcast(length, src=0)
        shared = self._tensor(content if self.is_first else bytes(int(length)))
        dist.broadcast(shared, src=0)
        received: bytes = shared.cpu().numpy().tobytes()
        return received

    def _gather(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        # PyTorch's functions for objects would unpickle data from the network.
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        gathered = self._gather_bytes(file.getvalue())
        return [np.load(io.BytesIO(content), allow_pickle=False) for content in gathered]

    def _gather_bytes(self, content: bytes) -> list[bytes]:
        sizes = self._gather_tensors(torch.tensor([len(content)], device=self.device))
        longest = max(int(size) for size in sizes)
        gathered = self._gather_tensors(self._tensor(content.ljust(longest, b"\0")))
        return [item[: int(size)].cpu().numpy().tobytes() for item, size in zip(gathered, sizes, strict=True)]

    def _gather_tensors(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all processes, which have the same shape."""
        gathered = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(gathered, tensor)
        return gathered

    def _tensor(self, content: bytes) -> torch.Tensor:
        return torch.frombuffer(bytearray(content), dtype=torch.uint8).to(self.device)

    def _close(self) -> None:
        dist.destroy_process_group()


def join() -> Group:
    """Join the group by the variables that torchrun sets; without them, the group is this process alone."""
    is_worker = in_worker() and "RANK" in os.environ
    rank, world_size, local_rank, local_world_size = (
        int(os.environ[name]) if is_worker else default
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
    )
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(device, rank, world_size, local_rank, local_world_size)
