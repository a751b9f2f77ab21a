"""A training as far as it is: what a checkpoint holds."""

import copy
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from microjobs.trainer.checkpoints import Checkpoints
from microjobs.trainer.progress import Progress

from .group import Group

TENSORS_FILE = "training.pt"


@dataclass
class State:
    """Everything that the next step depends on.

    best: weights of the lowest test loss, if they are wanted.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress = field(default_factory=Progress)
    best: dict[str, torch.Tensor] | None = None

    def keep_best(self) -> None:
        """Remember the weights as they are now."""
        self.best = copy.deepcopy(self.network.state_dict())

    def save(self, checkpoints: Checkpoints) -> None:
        checkpoints.save(self.progress.epoch, self._write, self.progress.to_json())

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

    def restore(self, checkpoints: Checkpoints, group: Group) -> bool:
        """Become the newest checkpoint, if there is one, in all processes: only the first needs to have the folder.

        Raises:
            UserError: it is of another training.
        """
        state, tensors = None, b""
        if group.is_first and (checkpoint := checkpoints.restore()) is not None:
            state, tensors = checkpoint.state, (checkpoint.folder / TENSORS_FILE).read_bytes()
        if (state := json.loads(group.share_bytes(json.dumps(state).encode()))) is None:
            return False
        self._become(Progress.from_json(state), group.share_bytes(tensors))
        return True

    def _become(self, progress: Progress, tensors: bytes) -> None:
        self.progress = progress
        loaded = torch.load(io.BytesIO(tensors), map_location="cpu", weights_only=True)
        self.network.load_state_dict(loaded["network"])
        self.optimizer.load_state_dict(loaded["optimizer"])
        self.best = loaded["best"]
        torch.set_rng_state(loaded["random"])
        if len(loaded["random_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(loaded["random_cuda"])
