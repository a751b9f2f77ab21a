"""Training of a PyTorch network: forward pass, loss, backward pass, step."""

import copy
import io
from pathlib import Path

import torch
from torch import nn

from microjobs.stopping import StopRequest
from microjobs.trainer.batches import Indices, StepRows
from microjobs.trainer.data import Array, TrainingData
from microjobs.trainer.framework import MAX_GRADIENT_NORM
from microjobs.trainer.process_data import ProcessData

from .export import save_onnx, save_state
from .group import Group
from .hyperparameters import Hyperparameters
from .network import build_network, predict

LOSSES: dict[str, type[nn.Module]] = {"mse": nn.MSELoss, "mae": nn.L1Loss, "l1": nn.L1Loss, "huber": nn.HuberLoss}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}


class Training:
    """One process's part of the training; see `microjobs.trainer.framework.Training`.

    Args:
        network: the network itself, on the group's device.
        model: the module that each step calls: the network, or a compiled or parallel version of it.
    """

    checkpoint_file = "training.pt"

    def __init__(
        self,
        network: nn.Module,
        model: nn.Module,
        data: ProcessData,
        hyperparameters: Hyperparameters,
        group: Group,
        stop: StopRequest,
    ) -> None:
        self.network, self.model = network, model
        self.hyperparameters, self.group, self.stop = hyperparameters, group, stop
        optimizer = OPTIMIZERS[hyperparameters.optimizer]
        self.optimizer: torch.optim.Optimizer = optimizer(network.parameters(), lr=hyperparameters.learning_rate)
        self.best_weights: dict[str, torch.Tensor] | None = None
        # bfloat16 has the range of single precision, so losses need no scaling.
        self._mixed_precision = hyperparameters.mixed_precision and group.has_gpu
        self._train_data = self._to_device(data.local_data.x_train), self._to_device(data.local_data.y_train)
        self._test_data = self._to_device(data.test_rows[0]), self._to_device(data.test_rows[1])
        # The loss is a sum, which `step` divides by the rows of all processes, because the number of rows of a
        # batch differs between processes, and may be 0.
        self._loss = LOSSES[hyperparameters.loss](reduction="sum")

    def _to_device(self, array: Array | Indices) -> torch.Tensor:
        return torch.from_numpy(array).to(self.group.device)

    def write(self, folder: Path) -> None:
        tensors = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best_weights,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
        }
        # the file is opened here, because torch would hide the error of a full disk
        with (folder / self.checkpoint_file).open("wb") as file:
            torch.save(tensors, file)

    def load(self, content: bytes) -> None:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        self.network.load_state_dict(tensors["network"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.best_weights = tensors["best"]
        torch.set_rng_state(tensors["random"])
        if len(tensors["random_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(tensors["random_cuda"])

    def begin_epoch(self, _epoch: int, order: Indices, loss: float) -> None:
        self._order = self._to_device(order)
        self._loss_sum = torch.tensor(loss if self.group.is_first else 0.0, device=self.group.device)
        self.model.train()
        # Processes receive a stop signal at different times, but must all stop before the same step.
        self._read_stop_vote = self.group.begin_stop_vote(self.stop)

    def should_stop(self) -> bool:
        if self._read_stop_vote():
            return True
        self._read_stop_vote = self.group.begin_stop_vote(self.stop)
        return False

    def step(self, step: StepRows) -> None:
        (x, y), rows = self._train_data, self._order[step.start : step.end]
        with torch.autocast(self.group.device.type, torch.bfloat16, enabled=self._mixed_precision):
            predictions = self.model(x[rows])
        loss: torch.Tensor = self._loss(predictions.float(), y[rows])
        self.optimizer.zero_grad()
        # DistributedDataParallel averages over processes; this factor yields the mean over the rows of all processes.
        (loss / step.total_rows * self.group.world_size).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self._loss_sum += loss.detach()

    def compute_epoch_loss(self) -> float:
        self._read_stop_vote()  # this call completes the vote that is still open
        return self.group.sum(self._loss_sum.item())[0]

    def compute_test_loss(self) -> float:
        x, y = self._test_data
        loss, rows = self.group.sum(self._loss(predict(self.network, x), y).item(), len(x))
        return loss / rows

    def log_epoch(self, epoch: int, train_loss: float, test_loss: float) -> None:
        if epoch % self.hyperparameters.test_interval == 0 and self.group.is_first:
            print(f"Epoch: {epoch} | Train loss: {train_loss:.3f} | Test loss: {test_loss:.3f}", flush=True)

    def keep_best(self) -> None:
        self.best_weights = copy.deepcopy(self.network.state_dict())

    def use_best_weights(self) -> None:
        if self.best_weights is not None:
            self.network.load_state_dict(self.best_weights)

    def predict(self, x: Array) -> Array:
        predictions: Array = predict(self.network, self._to_device(x)).cpu().numpy()
        return predictions

    def export(self, data: TrainingData, folder: Path) -> None:
        self.network.cpu()  # the network is moved to the CPU, so that the model can be loaded without a GPU
        fresh_network = build_network(self.hyperparameters.model, data.features)
        save_state(self.network, fresh_network, torch.from_numpy(data.sample), folder)
        save_onnx(self.network, data.features, folder)
