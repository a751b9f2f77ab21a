"""A training as far as it is: what a checkpoint holds."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from microjobs.trainer.checkpoints import Checkpoints
from microjobs.trainer.progress import Progress

from .group import Group

ARRAYS_FILE = "training.npz"

Arrays = list[NDArray[Any]]


@dataclass
class State:
    """Everything that the next step depends on.

    best: weights of the lowest test loss, if they are wanted.
    """

    network: keras.Model
    optimizer: keras.optimizers.Optimizer
    progress: Progress = field(default_factory=Progress)
    best: Arrays | None = None

    def keep_best(self) -> None:
        """Remember the weights as they are now."""
        self.best = self.network.get_weights()

    def save(self, checkpoints: Checkpoints) -> None:
        checkpoints.save(self.progress.epoch, self._write, self.progress.to_json())

    @property
    def _variables(self) -> list[keras.Variable]:
        """Those of Keras's random generators are among the network's."""
        return [*self.network.variables, *self.optimizer.variables]

    def _write(self, folder: Path) -> None:
        arrays = {f"variable-{number}": np.asarray(one) for number, one in enumerate(self._variables)}
        arrays |= {f"best-{number}": one for number, one in enumerate(self.best or [])}
        np.savez(folder / ARRAYS_FILE, allow_pickle=False, **arrays)

    def restore(self, checkpoints: Checkpoints, group: Group) -> bool:
        """Become the newest checkpoint, if there is one, in all processes: only the first needs to have the folder.

        Raises:
            UserError: it is of another training.
        """
        checkpoint = checkpoints.restore() if group.is_first else None
        variables, best = self._read(checkpoint.folder) if checkpoint else (self._values(), [])
        told = {"progress": dict(checkpoint.state), "best": bool(best)} if checkpoint else None
        if (told := json.loads(group.share_bytes(json.dumps(told).encode()))) is None:
            return False
        self.progress = Progress.from_json(told["progress"])
        for variable, value in zip(self._variables, group.share(variables), strict=True):
            variable.assign(value)
        if told["best"]:
            self.best = group.share(best or self.network.get_weights())
        return True

    def _values(self) -> Arrays:
        return [np.asarray(variable) for variable in self._variables]

    def _read(self, folder: Path) -> tuple[Arrays, Arrays]:
        with np.load(io.BytesIO((folder / ARRAYS_FILE).read_bytes()), allow_pickle=False) as content:
            variables = [content[f"variable-{number}"] for number in range(len(self._variables))]
            best = [content[name] for name in content.files if name.startswith("best-")]
        return variables, best
