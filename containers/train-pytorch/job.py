"""The training job once its data is there: put together, go on or begin, train, save."""

import logging

import torch

from fit import Fit, Rows, optimizer_for, predict
from group import Group
from hyperparameters import Hyperparameters
from microjobs.batches import Batches
from microjobs.checkpoints import job_checkpoints
from microjobs.contract import Layout
from microjobs.errors import Stopped, UserError
from microjobs.stopping import StopRequest
from microjobs.training import Array, Trained, TrainingData, finish, identity
from network import build, start_at
from state import State, go_on

logger = logging.getLogger("microjobs")


class Job:
    """One process's part of the training job."""

    def __init__(self, layout: Layout, hyperparameters: Hyperparameters, data: TrainingData, stop: StopRequest) -> None:
        self.layout, self.hyperparameters, self.data, self.stop = layout, hyperparameters, data, stop
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.group = Group()
        known = identity("PyTorch", torch.__version__, hyperparameters, data)
        self.checkpoints = job_checkpoints(layout, known, hyperparameters.keep_checkpoints)
        logger.info("PyTorch %s on %s", torch.__version__, self.device)

    def run(self) -> None:
        """Train and save; see `main.train`."""
        hyperparameters, data, stop = self.hyperparameters, self.data, self.stop
        state = self._begin()
        train, test = self._rows(data.x_train, data.y_train), self._rows(data.x_test, data.y_test)
        count = len(data.x_train)
        batches = Batches(count, hyperparameters.rows_a_step(count), hyperparameters.seed)
        Fit(state, state.network, train, test, batches, hyperparameters, stop, self.checkpoints, self.group).run()
        if stop.signal_number is not None and not state.begun:
            raise Stopped(stop.signal_number)
        self._save(state, (train, test))

    def _rows(self, x: Array, y: Array) -> Rows:
        return torch.from_numpy(x).to(self.device), torch.from_numpy(y).to(self.device)

    def _begin(self) -> State:
        """The state before the first step: of a new network, or of the newest checkpoint."""
        torch.manual_seed(self.hyperparameters.seed)
        network = build(self.hyperparameters.model, self.data.features)
        start_at(network, float(self.data.y_train.mean()))
        network.to(self.device)
        state = State(network, optimizer_for(network, self.hyperparameters))
        go_on(state, self.checkpoints, self.group)
        if state.begun:
            self._announce(state)
        return state

    def _announce(self, state: State) -> None:
        done, wanted = self._epochs(state), self.hyperparameters.epochs
        if done > wanted:
            raise UserError(
                f"the checkpoint in {self.checkpoints.folder} is after {done:.10g} epochs, epochs is {wanted}: "
                "raise epochs, or empty the folder to train anew"
            )
        rest = "; all are trained, the model is left to save" if done == wanted else ""
        logger.info("going on after %.10g of %d epochs, from %s%s", done, wanted, self.checkpoints.folder, rest)

    def _epochs(self, state: State) -> float:
        """Passes over the training rows, with a fraction for one that was stopped."""
        return state.epoch + round(state.rows / len(self.data.x_train), 3)

    def _save(self, state: State, rows: tuple[Rows, Rows]) -> None:
        """The trained network as a bundle."""
        from export import save_onnx, save_state

        network, layout = state.network, self.layout
        best = state.history.best_epoch if state.best is not None else None
        if state.best is not None:
            network.load_state_dict(state.best)
        on_train, on_test = (predict(network, x).cpu().numpy() for x, _ in rows)
        network.cpu()  # a model file that loads anywhere
        layout.model.mkdir(parents=True, exist_ok=True)
        new = build(self.hyperparameters.model, self.data.features)
        save_state(network, new, torch.from_numpy(self.data.sample), layout.model)
        save_onnx(network, self.data.features, layout.model)
        trained = Trained("pytorch", self._epochs(state), state.seconds, state.history, on_train, on_test, best)
        finish(layout, self.hyperparameters, self.data, trained, self.stop, self.checkpoints)
