"""The training loop of a job: epochs with tests, checkpoints, early stopping and stop signals."""

import time
from dataclasses import dataclass

from microjobs.trainer.batches import Batches
from microjobs.trainer.checkpoints import Checkpoints
from microjobs.trainer.framework import Training
from microjobs.trainer.hyperparameters import TrainerHyperparameters
from microjobs.trainer.progress import TrainingProgress


@dataclass
class TrainingLoop:
    """Runs the training from `progress` until all epochs are done, the test loss plateaus, or a stop signal arrives.

    checkpoints: the checkpoints that the first process saves; None in all other processes.
    """

    training: Training
    progress: TrainingProgress
    batches: Batches
    hyperparameters: TrainerHyperparameters
    checkpoints: Checkpoints | None

    def run(self) -> None:
        """Train. The last checkpoint contains the final state, even after a stop signal.

        Raises:
            UserError: the loss is not finite.
        """
        self._steps, self._saved_position = self.batches.steps(), self.progress.position
        progress, start, seconds_before = self.progress, time.monotonic(), self.progress.seconds
        is_complete = True
        while is_complete and not self._is_finished():
            if is_complete := self._train_epoch():
                self._end_epoch()
            progress.seconds = seconds_before + time.monotonic() - start
            if is_complete:
                self._save_if_due()
        if progress.step:  # after a stop signal in an epoch: a diverged network must not be saved
            progress.history.check(progress.epoch, progress.loss / progress.rows, self.training.compute_test_loss())
        self._save()

    def _is_finished(self) -> bool:
        patience = self.hyperparameters.early_stopping
        return self.progress.epoch >= self.hyperparameters.epochs or self.progress.history.has_plateaued(patience)

    def _train_epoch(self) -> bool:
        """Train the rest of the epoch. Return False if a stop signal ended it."""
        progress, training = self.progress, self.training
        training.begin_epoch(progress.epoch, self.batches.order(progress.epoch), progress.loss)
        for step in self._steps[progress.step :]:
            if training.should_stop():
                break
            training.step(step)
            progress.step, progress.rows = progress.step + 1, progress.rows + step.total_rows
        progress.loss = training.compute_epoch_loss()
        return progress.step == len(self._steps)

    def _end_epoch(self) -> None:
        """Test the network if a test is due after this epoch, and begin the next epoch."""
        progress, training, epoch = self.progress, self.training, self.progress.epoch
        if self.hyperparameters.is_tested(epoch):
            losses = progress.loss / progress.rows, training.compute_test_loss()
            progress.history.add(epoch, *losses)
            if self.hyperparameters.best_weights and progress.history.best_epoch == epoch:
                training.keep_best()
            training.log_epoch(epoch, *losses)
        progress.end_epoch()

    def _save_if_due(self) -> None:
        is_due = self.progress.epoch % self.hyperparameters.checkpoint_every == 0
        if is_due and self.checkpoints is not None and self.checkpoints.is_due:
            self._save()

    def _save(self) -> None:
        """Save a checkpoint, unless the training made no step since its start or its last checkpoint."""
        if self.checkpoints is not None and self.progress.position != self._saved_position:
            self.checkpoints.save(self.progress.epoch, self.training.write, self.progress.to_json())
            self._saved_position = self.progress.position
