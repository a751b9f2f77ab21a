"""The training job once its data is there: put together, go on or begin, train, save."""

import logging
import signal

import torch

from microjobs.contract import Layout
from microjobs.errors import Stopped
from microjobs.files import filled
from microjobs.stopping import StopRequest
from microjobs.trainer.checkpoints import job_checkpoints
from microjobs.trainer.shares import Shares
from microjobs.trainer.training import Array, Trained, TrainingData, finish, identity

from .acceleration import announce, choose_threads, compiled
from .fit import Fit, Rows, optimizer_for, predict
from .group import join
from .hyperparameters import Hyperparameters
from .network import build, start_at
from .state import State

logger = logging.getLogger("microjobs")


class Job:
    """One process's part of the training job."""

    def __init__(self, layout: Layout, hyperparameters: Hyperparameters, data: TrainingData, stop: StopRequest) -> None:
        self.layout, self.hyperparameters, self.stop = layout, hyperparameters, stop
        self.group = join()
        self.shares = Shares(data, self.group)
        self.data = self.shares.data
        known = identity("PyTorch", torch.__version__, hyperparameters, self.shares)
        self.checkpoints = job_checkpoints(layout, known, hyperparameters.keep_checkpoints)
        if self.group.is_first:
            logger.info("PyTorch %s on %s", torch.__version__, self.group.describe())
            announce(self.group.device, hyperparameters)

    def run(self) -> None:
        """Train and save; see `main.train`."""
        state = self._begin()
        train, test = self._rows(self.data.x_train, self.data.y_train), self._rows(*self.shares.test)
        batches = self.shares.batches(self.hyperparameters)
        model = compiled(self.group.parallel(state.network), self.group.device, self.hyperparameters)
        Fit(state, model, train, test, batches, self.hyperparameters, self.stop, self.checkpoints, self.group).run()
        if not state.progress.begun:  # all were asked to stop, maybe by a signal that has not come to this process yet
            raise Stopped(self.stop.signal_number or signal.SIGTERM)
        self._save(state)
        self.group.leave()

    def _begin(self) -> State:
        """The state before the first step: of a new network, or of the newest checkpoint."""
        torch.manual_seed(self.hyperparameters.seed)
        network = build(self.hyperparameters.model, self.data.features)
        start_at(network, self.shares.mean_target)
        choose_threads(network, self.hyperparameters.batch_size or self.shares.rows)
        network.to(self.group.device)
        state = State(network, optimizer_for(network, self.hyperparameters))
        if state.restore(self.checkpoints, self.group):
            state.progress.announce(self.shares.rows, self.hyperparameters.epochs, self.checkpoints.folder)
        return state

    def _rows(self, x: Array, y: Array) -> Rows:
        return torch.from_numpy(x).to(self.group.device), torch.from_numpy(y).to(self.group.device)

    def _save(self, state: State) -> None:
        """The trained network as a bundle, by the first process."""
        if not self.group.is_first and not self.data.shares:
            return
        network = state.network
        if state.best is not None:
            network.load_state_dict(state.best)
        own = (self._predict(network, x) for x in (self.data.x_train, self.data.x_test))
        data, on_train, on_test = self.shares.together(*own)
        if not self.group.is_first:
            return
        from .export import save_onnx, save_state

        layout, progress = self.layout, state.progress
        network.cpu()  # a model file that loads anywhere
        new = build(self.hyperparameters.model, data.features)
        best = progress.history.best_epoch if state.best is not None else None
        passes = progress.passes(self.shares.rows)
        trained = Trained("pytorch", passes, progress.seconds, progress.history, on_train, on_test, best)
        with filled(layout.model):
            save_state(network, new, torch.from_numpy(data.sample), layout.model)
            save_onnx(network, data.features, layout.model)
            finish(layout, self.hyperparameters, data, trained, self.stop, self.checkpoints)

    def _predict(self, network: torch.nn.Module, x: Array) -> Array:
        predictions: Array = predict(network, torch.from_numpy(x).to(self.group.device)).cpu().numpy()
        return predictions
