"""How far a training is, in the numbers that a checkpoint holds, whatever the framework."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from microjobs.errors import UserError
from microjobs.trainer.training import History

NUMBERS = ("epoch", "step", "loss", "rows", "seconds")

logger = logging.getLogger("microjobs")


@dataclass
class Progress:
    """Where a training is, in all runs of the job together.

    epoch: whole epochs done.
    step: steps done of the next one; `loss` and `rows` are the sums over them.
    seconds: of training.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    rows: float = 0
    seconds: float = 0.0
    history: History = field(default_factory=History)

    @property
    def begun(self) -> bool:
        return self.epoch > 0 or self.step > 0

    @property
    def where(self) -> tuple[int, int]:
        return self.epoch, self.step

    def passes(self, rows: int) -> float:
        """Passes over so many training rows, with a fraction for one that was stopped."""
        return self.epoch + round(self.rows / rows, 3)

    def end_epoch(self) -> None:
        self.epoch, self.step, self.loss, self.rows = self.epoch + 1, 0, 0.0, 0

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in NUMBERS} | {"history": asdict(self.history)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Progress":
        return cls(**{name: content[name] for name in NUMBERS}, history=History(**content["history"]))

    def announce(self, rows: int, epochs: int, folder: Path) -> None:
        """Say from where the training goes on.

        Raises:
            UserError: it is further than asked for.
        """
        done = self.passes(rows)
        if done > epochs:
            raise UserError(
                f"the checkpoint in {folder} is after {done:.10g} epochs, more than the {epochs} asked for: "
                "raise epochs, or empty the folder to train anew"
            )
        rest = "; all are trained, the model is left to save" if done == epochs else ""
        logger.info("going on after %.10g of %d epochs, from %s%s", done, epochs, folder, rest)
