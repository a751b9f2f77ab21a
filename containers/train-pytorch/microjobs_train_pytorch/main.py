"""Trains a regression model with PyTorch: channels `train` and `test` in, a model bundle out."""

import logging

from microjobs.contract import Layout, read_training_resource_config
from microjobs.distributed import gpu_count, launch, must_launch, torchrun
from microjobs.stopping import stop_request
from microjobs.trainer.training import load_data

from .hyperparameters import Hyperparameters

logger = logging.getLogger("microjobs")


def train(hyperparameters: Hyperparameters) -> None:
    """Train, test and save, from the newest checkpoint if there is one; a stop signal keeps what is trained so far.

    Raises:
        UserError: the data is bad, the training diverged, or the checkpoint is of another training.
        PlatformError: another host was lost.
        RuntimeError: a saved model does not predict what the trained one does.
        Stopped: the signal came before anything was trained.
    """
    layout = Layout.from_environment()
    resources, processes = read_training_resource_config(layout), max(1, gpu_count())
    if must_launch(resources, processes):
        launch(torchrun(resources, processes), resources)
        return
    data = load_data(layout)  # before PyTorch, which takes seconds to import: bad data is told at once
    _settle_logging()
    from .job import Job

    with stop_request() as stop:  # to the end: from here on there is something to save
        Job(layout, hyperparameters, data, stop).run()


def _settle_logging() -> None:
    for chatty in ("torch", "onnx_ir", "onnxscript"):  # at INFO they report each of their steps
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # The exporter warns that torchvision is not there, whose operators no model here has.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
