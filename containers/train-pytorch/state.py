"""A training as far as it is: what a checkpoint holds."""

import copy
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from group import Group
from microjobs.checkpoints import Checkpoints
from microjobs.training import History

TENSORS_FILE = "training.pt"
NUMBERS = ("epoch", "step", "loss", "rows", "seconds")


@dataclass
class State:
    """Everything that the next step depends on.

    epoch: whole epochs done.
    step: steps done of the next one; `loss` and `rows` are the sums over them.
    best: weights of the lowest test loss, if they are wanted.
    seconds: of training, in all runs of the job.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    rows: float = 0
    seconds: float = 0.0
    history: History = field(default_factory=History)
    best: dict[str, torch.Tensor] | None = None

    @property
    def begun(self) -> bool:
        return self.epoch > 0 or self.step > 0

    @property
    def where(self) -> tuple[int, int]:
        return self.epoch, self.step

    def end_epoch(self) -> None:
        self.epoch, self.step, self.loss, self.rows = self.epoch + 1, 0, 0.0, 0

    def keep_best(self) -> None:
        """Remember the weights as they are now."""
        self.best = copy.deepcopy(self.network.state_dict())

    def save(self, checkpoints: Checkpoints) -> None:
        checkpoints.save(self.epoch, self._write, self._numbers())

    def _numbers(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in NUMBERS} | {"history": asdict(self.history)}

    def _write(self, folder: Path) -> None:
        tensors = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
        }
        with (folder / TENSORS_FILE).open("wb") as file:  # a full disk is an OSError here, and not where torch opens it
            torch.save(tensors, file)

    def restore(self, numbers: Mapping[str, Any], tensors: bytes) -> None:
        """Become what was saved, on the device where the network is now."""
        self.history = History(**numbers["history"])
        for name in NUMBERS:
            setattr(self, name, numbers[name])
        loaded = torch.load(io.BytesIO(tensors), map_location="cpu", weights_only=True)
        self.network.load_state_dict(loaded["network"])
        self.optimizer.load_state_dict(loaded["optimizer"])
        self.best = loaded["best"]
        torch.set_rng_state(loaded["random"])
        if len(loaded["random_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(loaded["random_cuda"])


def go_on(state: State, checkpoints: Checkpoints, group: Group) -> None:
    """Become the newest checkpoint, if there is one, in all processes: only the first needs to have the folder.

    Raises:
        UserError: it is of another training.
    """
    found: tuple[Mapping[str, Any], bytes] | None = None
    if group.is_first and (checkpoint := checkpoints.restore()) is not None:
        found = checkpoint.state, (checkpoint.folder / TENSORS_FILE).read_bytes()
    found = group.share(found)
    if found is not None:
        state.restore(*found)
        if not group.is_first:  # the sums over the steps of all processes are the first one's to go on with
            state.loss, state.rows = 0.0, 0
