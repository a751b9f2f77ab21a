"""Trains a regression model with PyTorch, from the channels `train` and `test`. Also serves models."""

import logging
from collections.abc import Callable

from microjobs.contract import ResourceConfig
from microjobs.distributed import Program, count_gpus, make_torchrun_program, must_launch
from microjobs.trainer import job
from microjobs.trainer.framework import Framework

from .hyperparameters import Hyperparameters


def train(hyperparameters: Hyperparameters) -> None:
    """Train, test and save; see `microjobs.trainer.job.train`."""
    job.train(hyperparameters, _load_framework, _find_worker_launcher)


def serve() -> None:
    """Serve the model in the model folder; see `microjobs.hosting.server.serve`."""
    from microjobs.hosting import server  # training does not need this module

    from .model_source import find_model_source

    server.serve(find_model_source)


def _find_worker_launcher(resources: ResourceConfig) -> Program | None:
    """Return torchrun with one process per GPU, or one per host without GPUs; None if one process is enough."""
    workers_per_host = max(1, count_gpus())
    return make_torchrun_program(resources, workers_per_host) if must_launch(resources, workers_per_host) else None


def _load_framework() -> Callable[[Hyperparameters], Framework]:
    for name in ("torch", "onnx_ir", "onnxscript"):  # at the level INFO, these loggers log each of their steps
        logging.getLogger(name).setLevel(logging.WARNING)
    # The exporter warns that torchvision is missing, but no model of this job uses its operators.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    from .framework import PyTorch

    return PyTorch
