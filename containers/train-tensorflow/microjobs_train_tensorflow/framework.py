"""Keras on TensorFlow as the framework of the trainer."""

from dataclasses import dataclass, field

import keras
import tensorflow as tf

from microjobs.stopping import StopRequest
from microjobs.trainer.process_data import ProcessData

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
    version = str(tf.__version__)

    def create_training(self, data: ProcessData, stop: StopRequest) -> Training:
        keras.utils.set_random_seed(self.hyperparameters.seed)
        # bfloat16 has the range of single precision, so losses need no scaling.
        is_mixed = self.hyperparameters.mixed_precision and self.group.has_gpu
        precision = "mixed_bfloat16" if is_mixed else "float32"
        with self.group.strategy.scope():
            network = build_network(data.local_data.features, data.mean_target, precision)
            optimizer = build_optimizer(network, self.hyperparameters)
        return Training(network, optimizer, data, self.hyperparameters, self.group, stop)
