"""Keras on TensorFlow as the framework of the trainer."""

from dataclasses import dataclass, field

import keras
import tensorflow as tf

from microjobs.stopping import StopRequest
from microjobs.trainer.process_data import ProcessData

from .acceleration import choose_precision, has_gpu
from .group import Group, join
from .hyperparameters import Hyperparameters
from .network import build_network, build_optimizer
from .training import Training


@dataclass(frozen=True)
class TensorFlow:
    """See `microjobs.trainer.framework.Framework`."""

    hyperparameters: Hyperparameters
    group: Group = field(default_factory=join)
    name = "TensorFlow"
    model_format = "tensorflow"
    version = str(tf.__version__)

    @property
    def has_gpu(self) -> bool:
        return has_gpu()

    def begin(self, data: ProcessData, stop: StopRequest) -> Training:
        keras.utils.set_random_seed(self.hyperparameters.seed)
        with self.group.strategy.scope():
            network = build_network(data.data.features, data.mean_target, choose_precision(self.hyperparameters))
            optimizer = build_optimizer(network, self.hyperparameters)
        return Training(network, optimizer, data, self.hyperparameters, self.group, stop)
