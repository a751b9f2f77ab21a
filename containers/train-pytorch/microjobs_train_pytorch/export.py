"""The trained network as files: `model.pth` for PyTorch, `model.onnx` for everybody."""

import warnings
from pathlib import Path

import torch
from torch import nn

from microjobs.bundle import MODEL_FILE

from .fit import predict

STATE_FILE = "model.pth"


def save_state(network: nn.Module, new: nn.Module, x: torch.Tensor, folder: Path) -> None:
    """Write the `state_dict`, and load it into a new instance of the network to see that it predicts the same.

    Raises:
        RuntimeError: it does not, for the rows `x` of shape (rows, features).
    """
    with (folder / STATE_FILE).open("wb") as file:  # PyTorch's own writer does not report a full disk as such
        torch.save(network.state_dict(), file)
    new.load_state_dict(torch.load(folder / STATE_FILE, weights_only=True))
    if not torch.equal(predict(new, x), predict(network, x)):
        raise RuntimeError(f"{STATE_FILE} loaded into a new instance predicts something else")


def save_onnx(network: nn.Module, features: int, folder: Path) -> None:
    """Write `model.onnx`: `features` of shape (rows, features) in, `predictions` of shape (rows, 1) out.

    By tracing: PyTorch's newer exporter writes the same graph and takes 4 s, most of it for imports, to this one's 0.3.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's advice to use the newer one
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, features),),
            folder / MODEL_FILE,
            input_names=["features"],
            output_names=["predictions"],
            dynamic_axes={"features": {0: "rows"}, "predictions": {0: "rows"}},
            dynamo=False,
        )
