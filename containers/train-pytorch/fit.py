"""The training loop: forward, loss, backward, step, and a test every few epochs."""

from collections.abc import Iterable

import torch
from torch import nn

from hyperparameters import Hyperparameters
from microjobs.stopping import StopRequest
from microjobs.training import GRADIENT_NORM, History

LOSSES: dict[str, type[nn.Module]] = {"mse": nn.MSELoss, "mae": nn.L1Loss, "l1": nn.L1Loss, "huber": nn.HuberLoss}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}

Rows = tuple[torch.Tensor, torch.Tensor]


def fit(network: nn.Module, train: Rows, test: Rows, hyperparameters: Hyperparameters, stop: StopRequest) -> History:
    """Train until the epochs are done or a stop is asked for; all rows lie on the network's device.

    Raises:
        UserError: the loss is not finite any more.
    """
    loss_fn = LOSSES[hyperparameters.loss]()
    optimizer = OPTIMIZERS[hyperparameters.optimizer](network.parameters(), lr=hyperparameters.learning_rate)
    step_rows = hyperparameters.rows_a_step(len(train[0]))
    history = History()
    for epoch in range(hyperparameters.epochs):
        train_loss = _epoch(network, _batches(train, step_rows), loss_fn, optimizer, stop)
        stopping = bool(stop)  # asked once: it may come at any time
        due = epoch % hyperparameters.eval_every == 0
        if due or stopping or epoch == hyperparameters.epochs - 1:
            test_loss = loss_fn(predict(network, test[0]), test[1]).item()
            history.add(epoch, train_loss, test_loss)
        if due:
            print(f"Epoch: {epoch} | Train loss: {train_loss:.3f} | Test loss: {test_loss:.3f}", flush=True)
        if stopping:
            break
    return history


def _batches(rows: Rows, step_rows: int) -> Iterable[Rows]:
    x, y = rows
    if step_rows == len(x):
        return [rows]  # the full batch needs no shuffling
    # Shuffled on the CPU, so that a seed means the same order on every device.
    order = torch.randperm(len(x)).to(x.device)
    return ((x[batch], y[batch]) for batch in order.split(step_rows))


def _epoch(
    network: nn.Module,
    batches: Iterable[Rows],
    loss_fn: nn.Module,
    optimizer: torch.optim.Optimizer,
    stop: StopRequest,
) -> float:
    """One pass over the batches, or as far as a stop lets it come; the mean loss of the rows seen."""
    network.train()
    total, rows = torch.zeros(()), 0
    for x, y in batches:
        loss = loss_fn(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimizer.step()
        total, rows = total + loss.detach() * len(x), rows + len(x)
        if stop:
            break
    return float(total) / rows


def predict(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Predictions of shape (rows, 1), in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        predictions: torch.Tensor = network(x)
        return predictions
