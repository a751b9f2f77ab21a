"""The training loop: forward, loss, backward, step, a test every few epochs, and a checkpoint when it is time."""

from dataclasses import dataclass

import torch
from torch import nn

from microjobs.stopping import StopRequest
from microjobs.trainer.batches import Batches
from microjobs.trainer.checkpoints import Checkpoints
from microjobs.trainer.epochs import Epochs
from microjobs.trainer.training import GRADIENT_NORM

from .acceleration import autocast
from .group import Group
from .hyperparameters import Hyperparameters
from .state import State

LOSSES: dict[str, type[nn.Module]] = {"mse": nn.MSELoss, "mae": nn.L1Loss, "l1": nn.L1Loss, "huber": nn.HuberLoss}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}

Rows = tuple[torch.Tensor, torch.Tensor]


def optimizer_for(network: nn.Module, hyperparameters: Hyperparameters) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = OPTIMIZERS[hyperparameters.optimizer](
        network.parameters(), lr=hyperparameters.learning_rate
    )
    return optimizer


@dataclass
class Fit(Epochs):
    """One run of the training.

    model: what computes: the state's network, maybe compiled, maybe among several processes.
    train, test: this process's rows, on the network's device; of test rows that all processes have, its share.
    batches: which of the training rows each step takes.
    """

    state: State
    model: nn.Module
    train: Rows
    test: Rows
    batches: Batches
    hyperparameters: Hyperparameters
    stop: StopRequest
    checkpoints: Checkpoints
    group: Group

    def __post_init__(self) -> None:
        # Sums, to be divided by the rows of all processes: a share of a batch may be smaller than others, or empty.
        self._loss = LOSSES[self.hyperparameters.loss](reduction="sum")
        self._steps = self.batches.steps()

    def _train(self) -> bool:
        """Train what is left of the epoch; false if a stop came before its end."""
        progress = self.state.progress
        order = torch.from_numpy(self.batches.order(progress.epoch)).to(self.group.device)
        total = torch.tensor(progress.loss if self.group.is_first else 0.0, device=self.group.device)
        stopped = False
        self.model.train()
        # Processes are not asked to stop at the same instant, but stop before the same step.
        is_stopped = self.group.ask(self.stop)
        for step in self._steps[progress.step :]:
            if stopped := is_stopped():
                break
            is_stopped = self.group.ask(self.stop)
            total += self._step(order[step.first : step.last], step.of_all)
            progress.step, progress.rows = progress.step + 1, progress.rows + step.of_all
        is_stopped()  # what was asked last: nothing stays under way
        progress.loss = self.group.sum(total.item())[0]
        return not stopped

    def _step(self, indices: torch.Tensor, of_all: int) -> torch.Tensor:
        """One step of all processes together; the sum of this one's losses."""
        x, y = self.train
        with autocast(self.group.device, self.hyperparameters):
            predictions = self.model(x[indices])
        loss: torch.Tensor = self._loss(predictions.float(), y[indices])
        self.state.optimizer.zero_grad()
        # The mean over the rows of all processes, of whose gradients the mean over the processes is taken.
        (loss / of_all * self.group.world).backward()
        nn.utils.clip_grad_norm_(self.state.network.parameters(), GRADIENT_NORM)
        self.state.optimizer.step()
        return loss.detach()

    def _end_epoch(self) -> None:
        """Test the epoch that was trained, if that is due."""
        progress, every = self.state.progress, self.hyperparameters.eval_every
        epoch, train_loss = progress.epoch, progress.loss / progress.rows
        if epoch % every == 0 or epoch == self.hyperparameters.epochs - 1:
            test_loss = self._test_loss()
            progress.history.add(epoch, train_loss, test_loss)
            if self.hyperparameters.best_weights and progress.history.best_epoch == epoch:
                self.state.keep_best()
            if epoch % every == 0 and self.group.is_first:
                print(f"Epoch: {epoch} | Train loss: {train_loss:.3f} | Test loss: {test_loss:.3f}", flush=True)
        progress.end_epoch()

    def _test_loss(self) -> float:
        """Over the test rows of all processes."""
        x, y = self.test
        loss, rows = self.group.sum(self._loss(predict(self.state.network, x), y).item(), len(x))
        return loss / rows


def predict(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Predictions of shape (rows, 1), in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        predictions: torch.Tensor = network(x)
        return predictions
