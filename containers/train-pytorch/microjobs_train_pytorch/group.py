"""The processes of one training job, one per device: a single process, or the processes that torchrun started."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from microjobs.stopping import StopRequest
from microjobs.trainer import group
from microjobs.worker import is_worker


@dataclass(frozen=True)
class Group(group.Group):
    """The process group of torch.distributed."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def has_gpu(self) -> bool:
        return bool(self.device.type == "cuda")

    def make_parallel(self, network: nn.Module) -> nn.Module:
        """Return a network that averages the gradients of all processes. It starts with the weights of process 0."""
        return network if self.world_size == 1 else nn.parallel.DistributedDataParallel(network)

    def begin_stop_vote(self, stop: StopRequest) -> Callable[[], bool]:
        """Start a vote of all processes on whether to stop. Return a function that returns the result of the vote.

        The messages travel while the next step is computed. Waiting for them would take a third of a small step's time.
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
        name = torch.cuda.get_device_name(self.device) if self.has_gpu else "the CPU"
        return name if self.local_world_size == 1 else f"{self.local_world_size} times {name}"

    def _sum(self, values: NDArray[Any]) -> NDArray[Any]:
        total = torch.tensor(values, device=self.device)
        dist.all_reduce(total)
        result: NDArray[Any] = total.cpu().numpy()
        return result

    def _close(self) -> None:
        dist.destroy_process_group()


def join() -> Group:
    """Join the group that torchrun's variables describe; without them, the group is this process alone."""
    variables = os.environ if is_worker() else {}
    rank, local_rank = (int(variables.get(name, 0)) for name in ("RANK", "LOCAL_RANK"))
    world_size, local_world_size = (int(variables.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(device, rank, world_size, local_rank, local_world_size)
