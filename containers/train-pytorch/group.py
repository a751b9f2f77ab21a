"""The processes of one training: a single one, or those that torchrun started on all hosts."""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Group:
    """What a process does together with the others; with one process nothing is sent."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; asked by all at the same step."""
        return flag if self.world == 1 else self.sum(flag)[0] > 0

    def sum(self, *values: float) -> list[float]:
        """The sum over all processes of each value."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def share(self, value: Any) -> Any:
        """What the first process has, to all."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self._device)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """What every process has, to all, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    @property
    def _device(self) -> torch.device:
        return torch.device("cuda", self.local_rank) if dist.get_backend() == "nccl" else torch.device("cpu")


def join(device: torch.device) -> Group:
    """The group of this process; several find each other as torchrun's variables say."""
    if "WORLD_SIZE" not in os.environ:
        return Group()
    if device.type == "cuda":
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    return Group(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))


def leave(group: Group) -> None:
    """Close the connections, when all are done."""
    if group.world > 1:
        dist.barrier()
        dist.destroy_process_group()
