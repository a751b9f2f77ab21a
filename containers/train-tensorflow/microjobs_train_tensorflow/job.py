"""The training job once its data is there: put together, go on or begin, train, save."""

import logging

import keras
import tensorflow as tf

from microjobs.contract import Layout
from microjobs.errors import Stopped
from microjobs.files import filled
from microjobs.stopping import StopRequest
from microjobs.trainer.checkpoints import job_checkpoints
from microjobs.trainer.shares import Shares
from microjobs.trainer.training import Trained, TrainingData, finish, identity

from .acceleration import announce, precision
from .fit import Fit, predict
from .group import Group, join
from .hyperparameters import Hyperparameters
from .network import build, optimizer_for
from .state import State

logger = logging.getLogger("microjobs")


class Job:
    """One host's part of the training job."""

    def __init__(self, layout: Layout, hyperparameters: Hyperparameters, data: TrainingData, stop: StopRequest) -> None:
        self.layout, self.hyperparameters, self.stop = layout, hyperparameters, stop
        self.group: Group = join()
        self.shares = Shares(data, self.group)
        self.data = self.shares.data
        known = identity("TensorFlow", tf.__version__, hyperparameters, self.shares)
        self.checkpoints = job_checkpoints(layout, known, hyperparameters.keep_checkpoints)
        if self.group.is_first:
            logger.info("TensorFlow %s on %s", tf.__version__, self.group.describe())
            announce(hyperparameters)

    def run(self) -> None:
        """Train and save; see `main.train`."""
        state = self._begin()
        batches = self.shares.batches(self.hyperparameters)
        train = (self.data.x_train, self.data.y_train)
        Fit(
            state, train, self.shares.test, batches, self.hyperparameters, self.stop, self.checkpoints, self.group
        ).run()
        if self.stop.signal_number is not None and not state.progress.begun:
            raise Stopped(self.stop.signal_number)
        self._save(state)
        self.group.leave()

    def _begin(self) -> State:
        """The state before the first step: of a new network, or of the newest checkpoint."""
        keras.utils.set_random_seed(self.hyperparameters.seed)
        with self.group.strategy.scope():
            network = build(self.data.features, self.shares.mean_target, precision(self.hyperparameters))
            state = State(network, optimizer_for(network, self.hyperparameters))
        if state.restore(self.checkpoints, self.group):
            state.progress.announce(self.shares.rows, self.hyperparameters.epochs, self.checkpoints.folder)
        return state

    def _save(self, state: State) -> None:
        """The trained network as a bundle, by the first host."""
        if not self.group.is_first and not self.data.shares:
            return
        # A new one, that knows nothing of other hosts or devices: a model that loads anywhere.
        network = build(self.data.features)
        network.set_weights(state.network.get_weights() if state.best is None else state.best)
        data, on_train, on_test = self.shares.together(
            predict(network, self.data.x_train), predict(network, self.data.x_test)
        )
        if not self.group.is_first:
            return
        from .export import save_onnx, save_savedmodel

        layout, progress = self.layout, state.progress
        best = progress.history.best_epoch if state.best is not None else None
        passes = progress.passes(self.shares.rows)
        trained = Trained("tensorflow", passes, progress.seconds, progress.history, on_train, on_test, best)
        with filled(layout.model):
            save_savedmodel(network, data.scaler, layout.model)
            save_onnx(network, layout.model)
            finish(layout, self.hyperparameters, data, trained, self.stop, self.checkpoints)
