"""Trains a regression model with Keras on TensorFlow, from the channels `train` and `test`. Also serves models."""

from collections.abc import Callable

from microjobs.contract import ResourceConfig
from microjobs.distributed import Program, make_tf_program, must_launch
from microjobs.trainer import job
from microjobs.trainer.framework import Framework

from .environment import prepare_tensorflow
from .hyperparameters import Hyperparameters


def train(hyperparameters: Hyperparameters) -> None:
    """Train, test and save; see `microjobs.trainer.job.train`."""
    job.train(hyperparameters, _load_framework, _find_worker_launcher)


def serve() -> None:
    """Serve the model in the model folder; see `microjobs.hosting.server.serve`."""
    from microjobs.hosting import server  # training does not need this module

    from .serving.model_source import find_model_source

    server.serve(find_model_source)


def _find_worker_launcher(resources: ResourceConfig) -> Program | None:
    return make_tf_program(resources) if must_launch(resources) else None


def _load_framework() -> Callable[[Hyperparameters], Framework]:
    prepare_tensorflow()
    from .framework import TensorFlow

    return TensorFlow
