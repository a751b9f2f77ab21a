"""The epochs of a training, whatever the framework: how far they go, when they are saved, and what a stop leaves."""

import time
from abc import ABC, abstractmethod
from typing import Protocol

from microjobs.hyperparameters import TrainerHyperparameters
from microjobs.trainer.checkpoints import Checkpoints
from microjobs.trainer.progress import Progress


class State(Protocol):
    """What a checkpoint holds."""

    progress: Progress

    def save(self, checkpoints: Checkpoints) -> None: ...


class Group(Protocol):
    """The processes of the training."""

    @property
    def is_first(self) -> bool: ...


class Epochs(ABC):
    """One run of the training, from where `state` is until the epochs are done, it is over, or a stop is asked for."""

    state: State
    hyperparameters: TrainerHyperparameters
    checkpoints: Checkpoints
    group: Group

    def run(self) -> None:
        """Train; whatever ends it, the last checkpoint is of the state that it ends with.

        Raises:
            UserError: the loss is not finite any more.
        """
        self._saved = self.state.progress.where
        progress, started, before = self.state.progress, time.monotonic(), self.state.progress.seconds
        patience = self.hyperparameters.early_stopping
        while progress.epoch < self.hyperparameters.epochs and not progress.history.is_over(patience):
            whole = self._train()
            if whole:
                self._end_epoch()
            progress.seconds = before + time.monotonic() - started
            if not whole:
                break
            if progress.epoch % self.hyperparameters.checkpoint_every == 0 and self.checkpoints.due:
                self._save()
        if progress.step:  # this part of an epoch is not in the history, but a diverged network must not be saved
            progress.history.check(progress.epoch, progress.loss / progress.rows, self._test_loss())
        if progress.where != self._saved:
            self._save()

    def _save(self) -> None:
        if self.group.is_first:
            self.state.save(self.checkpoints)
        self._saved = self.state.progress.where

    @abstractmethod
    def _train(self) -> bool:
        """Train what is left of the epoch; false if a stop came before its end."""

    @abstractmethod
    def _end_epoch(self) -> None:
        """Put the epoch into the history, if that is due, and begin the next."""

    @abstractmethod
    def _test_loss(self) -> float:
        """Over the test rows of all processes."""
