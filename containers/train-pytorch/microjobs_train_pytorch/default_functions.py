"""Default handlers for PyTorch models, which behave like the defaults of `sagemaker-pytorch-inference`."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from microjobs.errors import UserError
from microjobs.hosting.default_handlers import DefaultFunctions, decode_array, encode_array
from microjobs.hosting.media_types import NPY, parse_media_type
from microjobs.hosting.responses import HttpError
from microjobs.hosting.workers import compute_threads_per_worker

logger = logging.getLogger("microjobs")


def make_defaults(archive: Path | None) -> DefaultFunctions:
    """Return the default functions.

    Args:
        archive: the TorchScript archive in the model folder, if there is one.
    """
    return DefaultFunctions(lambda folder: _load_archive(archive, folder), decode_tensor, predict, encode_tensor)


def limit_threads() -> None:
    """Limit PyTorch to the worker's share of the CPUs, unless the user sets OMP_NUM_THREADS."""
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(compute_threads_per_worker(os.environ))


def choose_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _load_archive(archive: Path | None, model_dir: str) -> Any:
    if archive is None:
        raise UserError(f"{model_dir} has no TorchScript archive: define model_fn, or save the archive as model.pt")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the ignored warning recommends another format
            return torch.jit.load(str(archive), map_location=choose_device())
    except (RuntimeError, ValueError) as error:
        reason = _extract_reason(error)
        raise UserError(f"{archive.name} is not a TorchScript archive that PyTorch can load: {reason}") from error


def decode_tensor(body: bytes | str, content_type: str) -> torch.Tensor:
    """Decode a body as a tensor: float32 for text, the array's own type for npy.

    Raises:
        HttpError: 415, no decoder for the type; 400, the body is malformed, or has values other than numbers.
    """
    array = decode_array(body, content_type)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise HttpError(400, "the body contains values other than numbers: send an array, or define input_fn")
    if parse_media_type(content_type) != NPY:
        array = array.astype(np.float32)
    return torch.from_numpy(array).to(choose_device())


def predict(data: Any, model: Any) -> Any:
    """Call the model on this worker's device, in evaluation mode and without gradients."""
    model = model.to(choose_device()).eval()
    try:
        with torch.no_grad():
            return model(data.to(choose_device()))
    except RuntimeError as error:
        logger.exception("the model failed on a request")
        raise HttpError(500, f"the model failed: {_extract_reason(error)}") from error


def _extract_reason(error: Exception) -> str:
    """Return the last line of an error: TorchScript puts its own traceback before the reason."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].removeprefix("RuntimeError: ")


def encode_tensor(prediction: Any, accept: str) -> tuple[Any, str]:
    """Encode a tensor, or any other prediction, as `encode_array` does; return it with its media type."""
    if isinstance(prediction, torch.Tensor):
        prediction = prediction.detach().cpu().tolist()
    return encode_array(prediction, accept)
