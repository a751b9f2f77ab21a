"""Files of the trained network: `model.pth` for PyTorch, `model.onnx` for ONNX runtimes."""

import warnings
from pathlib import Path

import torch
from torch import nn

from microjobs.bundle import MODEL_FILE

from .network import predict

STATE_FILE = "model.pth"


def save_state(network: nn.Module, fresh_network: nn.Module, x: torch.Tensor, folder: Path) -> None:
    """Write the `state_dict`, and check that a new instance of the network predicts the same values with it.

    Args:
        x: rows of shape (rows, features) to predict.

    Raises:
        RuntimeError: the predictions differ.
    """
    # the file is opened here, because torch would hide the error of a full disk
    with (folder / STATE_FILE).open("wb") as file:
        torch.save(network.state_dict(), file)
    fresh_network.load_state_dict(torch.load(folder / STATE_FILE, weights_only=True))
    if not torch.equal(predict(fresh_network, x), predict(network, x)):
        raise RuntimeError(f"{STATE_FILE} loaded into a new instance predicts other values")


def save_onnx(network: nn.Module, features: int, folder: Path) -> None:
    """Write `model.onnx`, with the input `features` of shape (rows, features) and the output `predictions` of shape
    (rows, 1).

    This function uses the older exporter, which traces the model and takes 0.3 s. The newer exporter takes 4 s, mostly
    for imports.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the ignored warning advises to use the newer exporter
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, features),),
            folder / MODEL_FILE,
            input_names=["features"],
            output_names=["predictions"],
            dynamic_axes={"features": {0: "rows"}, "predictions": {0: "rows"}},
            dynamo=False,
        )
