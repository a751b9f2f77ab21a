"""Trains a regression model with PyTorch: channels `train` and `test` in, a model bundle out."""

import logging
import time

from hyperparameters import Hyperparameters
from microjobs.contract import Layout
from microjobs.stopping import stop_request
from microjobs.training import Trained, TrainingData, finish, load_data

logger = logging.getLogger("microjobs")


def train(hyperparameters: Hyperparameters) -> None:
    """Train, test and save; a stop signal ends the epochs early and keeps the model.

    Raises:
        UserError: the data is bad, or the training diverged.
        RuntimeError: a saved model does not predict what the trained one does.
    """
    layout = Layout.from_environment()
    data = load_data(layout)  # before PyTorch, which takes seconds to import: bad data is told at once
    _settle_logging()
    _train(hyperparameters, data, layout)


def _settle_logging() -> None:
    for chatty in ("torch", "onnx_ir", "onnxscript"):  # at INFO they report each of their steps
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # The exporter warns that torchvision is not there, whose operators no model here has.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


def _train(hyperparameters: Hyperparameters, data: TrainingData, layout: Layout) -> None:
    import torch

    from export import save_onnx, save_state
    from fit import fit, predict
    from network import build, start_at

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logger.info("PyTorch %s on %s", torch.__version__, device)
    torch.manual_seed(hyperparameters.seed)
    network = build(hyperparameters.model, data.features)
    start_at(network, float(data.y_train.mean()))
    network.to(device)
    arrays = (data.x_train, data.y_train, data.x_test, data.y_test)
    x_train, y_train, x_test, y_test = (torch.from_numpy(array).to(device) for array in arrays)

    with stop_request() as stop:  # to the end: what was trained before a stop is saved
        started = time.monotonic()
        history = fit(network, (x_train, y_train), (x_test, y_test), hyperparameters, stop)
        seconds = time.monotonic() - started
        predictions = [predict(network, x).cpu().numpy() for x in (x_train, x_test)]
        network.cpu()  # a model file that loads anywhere
        layout.model.mkdir(parents=True, exist_ok=True)
        new = build(hyperparameters.model, data.features)
        save_state(network, new, torch.from_numpy(data.sample), layout.model)
        save_onnx(network, data.features, layout.model)
        finish(layout, hyperparameters, data, Trained("pytorch", seconds, history, *predictions), stop)
