"""The trained network as files: `model.pth` for PyTorch, `model.onnx` for everybody."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from fit import predict
from microjobs.bundle import MODEL_FILE

STATE_FILE = "model.pth"

# The exporter warns that torchvision is not there, whose operators no model here has.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
for chatty in ("onnx_ir", "onnxscript"):  # at INFO they report each of their steps
    logging.getLogger(chatty).setLevel(logging.WARNING)


def save_state(network: nn.Module, new: Callable[[], nn.Module], x: torch.Tensor, folder: Path) -> None:
    """Write the `state_dict`, and load it into a new instance to see that it predicts the same.

    Raises:
        RuntimeError: it does not, for the rows `x` of shape (rows, features).
    """
    torch.save(network.state_dict(), folder / STATE_FILE)
    loaded = new()
    loaded.load_state_dict(torch.load(folder / STATE_FILE, weights_only=True))
    if not torch.equal(predict(loaded, x), predict(network, x)):
        raise RuntimeError(f"{STATE_FILE} loaded into a new instance predicts something else")


def save_onnx(network: nn.Module, x: torch.Tensor, folder: Path) -> None:
    """Write `model.onnx`: `features` of shape (rows, features) in, `predictions` of shape (rows, 1) out."""
    with warnings.catch_warnings():
        # PyTorch's exporter calls a function that PyTorch itself has deprecated.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        torch.onnx.export(
            network.eval(),
            (x,),
            folder / MODEL_FILE,
            input_names=["features"],
            output_names=["predictions"],
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
