"""Progress of a training job: the numbers that the checkpoints of all frameworks contain."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from microjobs.errors import UserError

logger = logging.getLogger("microjobs")


@dataclass
class History:
    """Training losses and test losses of the epochs that were tested. `epochs` has their numbers, from 0."""

    epochs: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)

    def add(self, epoch: int, train: float, test: float) -> None:
        """Check the losses of an epoch and append them."""
        self.check(epoch, train, test)
        self.epochs.append(epoch)
        self.train.append(train)
        self.test.append(test)

    @staticmethod
    def check(epoch: int, train: float, test: float) -> None:
        """Raise UserError if a loss is not finite, because no later loss would be finite."""
        if not (math.isfinite(train) and math.isfinite(test)):
            raise UserError(
                f"the training diverged: in epoch {epoch} the train loss is {train:g} and the test loss {test:g}; "
                "use a smaller learning_rate"
            )

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the lowest test loss; None before the first test."""
        return self.epochs[self.test.index(min(self.test))] if self.epochs else None

    def has_plateaued(self, patience: int) -> bool:
        """Return whether no test loss of the last `patience` epochs was the lowest so far; False if `patience` is 0."""
        best_epoch = self.best_epoch
        return patience > 0 and best_epoch is not None and self.epochs[-1] - best_epoch >= patience


@dataclass
class TrainingProgress:
    """Position and losses of a training job, over all its attempts.

    epoch: number of complete epochs.
    step: number of steps done in the current epoch; `loss` and `rows` are the sums over these steps.
    seconds: training time.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    rows: float = 0
    seconds: float = 0.0
    history: History = field(default_factory=History)

    @property
    def position(self) -> tuple[int, int]:
        return self.epoch, self.step

    def count_epochs(self, training_rows: int) -> float:
        """Return the number of complete epochs, plus the fraction of the current epoch.

        training_rows: number of training rows; each epoch processes all of them.
        """
        return self.epoch + round(self.rows / training_rows, 3)

    def end_epoch(self) -> None:
        self.epoch, self.step, self.loss, self.rows = self.epoch + 1, 0, 0.0, 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TrainingProgress":
        members = {member.name: content[member.name] for member in fields(cls)}
        return cls(**{**members, "history": History(**content["history"])})

    def log_resumption(self, training_rows: int, epochs: int, folder: Path) -> None:
        """Log the position at which the training resumes from the checkpoint in `folder`.

        Raises:
            UserError: the checkpoint has more epochs than requested.
        """
        epoch_count = self.count_epochs(training_rows)
        if epoch_count > epochs:
            raise UserError(
                f"the checkpoint in {folder} has {epoch_count:.10g} epochs, more than the requested {epochs}: "
                "increase epochs, or empty the folder to start over"
            )
        note = "; all epochs are done, only the model is saved" if epoch_count == epochs else ""
        logger.info("resuming after %.10g of %d epochs, from %s%s", epoch_count, epochs, folder, note)
