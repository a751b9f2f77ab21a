"""Default functions, which replace the functions that a user's program does not define.

If a program defines predict_fn, the defaults behave like those of `sagemaker-inference`. That package rejects a program
without predict_fn. `serve` accepts it: requests and responses then have the formats of a bundle. The images
train-pytorch and preprocess have other defaults.
"""

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microjobs.bundle import read_bundle
from microjobs.predictor import Predictor

from . import formats
from .content_negotiation import choose_media_type, negotiate
from .formats.rows import Numbers, to_valid_rows
from .media_types import FORMATS, JSON, JSON_LINES, SUPPORTED_FORMATS, parse_media_type
from .responses import HttpError, quote
from .toolkit import decoder, encoder, errors, utils


@dataclass(frozen=True)
class DefaultFunctions:
    """Replacements for the functions that a program does not define, with the parameters of `sagemaker-inference`.

    Args:
        model_fn: loads the model; raises UserError if it cannot.
    """

    model_fn: Callable[[str], Any]
    input_fn: Callable[[bytes | str, str], Any]
    predict_fn: Callable[[Any, Any], Any]
    output_fn: Callable[[Any, str], Any]


ChooseDefaults = Callable[[Collection[str], Path], DefaultFunctions]
"""Function that returns the defaults. Its arguments are the names of the functions that a program defines, and the
model folder."""


def choose_bundle_defaults(defined_functions: Collection[str], _model_dir: Path) -> DefaultFunctions:
    """Return the defaults of the image serve: the model is a bundle, and data are numpy arrays."""
    if "predict_fn" in defined_functions:
        return DefaultFunctions(load_bundle, decode_array, predict_rows, encode_array)
    return DefaultFunctions(load_bundle, decode_rows, predict_rows, encode_predictions)


@functools.lru_cache(maxsize=1)
def load_bundle(model_dir: str) -> Predictor:
    """Load a bundle. If the server called this function before the fork, all workers share the memory of the bundle."""
    return Predictor(read_bundle(Path(model_dir)))


def decode_array(body: bytes | str, content_type: str) -> Any:
    """Decode a body as `sagemaker-inference` does, and also JSON lines of numbers.

    Raises:
        HttpError: 415, no decoder for the type; 400, the body is malformed.
    """
    media_type = parse_media_type(content_type)
    if FORMATS.get(media_type) == JSON_LINES:
        return decode_rows(body, content_type)
    try:
        return decoder.decode(body, media_type)
    except errors.UnsupportedFormatError:
        remedy = f"send {SUPPORTED_FORMATS}, or define input_fn"
        raise HttpError(415, f"Content-Type {quote(content_type)} is not supported: {remedy}") from None


def encode_array(prediction: Any, accept: str) -> tuple[Any, str]:
    """Encode a prediction as `sagemaker-inference` does, and also as JSON lines; return it with its media type.

    Raises:
        HttpError: 406, no encoder for the type; 500, the type cannot represent the prediction.
    """
    accepted_type = next((name for name in utils.parse_accept(accept) if name in encoder.SUPPORTED_CONTENT_TYPES), None)
    media_type = accepted_type or choose_media_type(accept, JSON)
    return _encode(prediction, media_type), media_type


def decode_rows(body: bytes | str, content_type: str) -> Numbers:
    """Decode a body as for a bundle: numbers, one row per record.

    Raises:
        HttpError: 415, no decoder for the type; 400, the body is malformed.
    """
    media_type, _ = negotiate(content_type, "")
    content = body.encode() if isinstance(body, str) else formats.to_utf8(body, content_type)
    return formats.decode(content, media_type).copy()  # a decoder's own array can be read-only


def predict_rows(data: Any, model: Any) -> Any:
    if isinstance(model, Predictor):
        return model.predict(to_valid_rows(data, model.features))
    predict = getattr(model, "predict", None)
    return predict(data) if callable(predict) else model(data)


def can_predict(model: object) -> bool:
    """Return whether `predict_rows` supports the model."""
    return callable(model) or callable(getattr(model, "predict", None))


def encode_predictions(prediction: Any, accept: str) -> tuple[Any, str]:
    """Encode a prediction as for a bundle; return the body with its media type.

    In JSON, the prediction becomes the member `predictions` of an object, unless it is an object or a string.

    Raises:
        HttpError: 406, no encoder for the type; 500, the type cannot represent the prediction.
    """
    media_type = choose_media_type(accept, JSON)
    numbers = _to_rows(prediction)
    if numbers is not None:
        return formats.encode(numbers, media_type), media_type
    if FORMATS[media_type] == JSON and not isinstance(prediction, dict | str):
        prediction = {"predictions": prediction}
    return _encode(prediction, media_type), media_type


def _to_rows(prediction: Any) -> Numbers | None:
    """Return numbers with one or two dimensions as rows; None for any other prediction."""
    try:
        array = np.asarray(prediction)
    except Exception:  # ragged lists, and arrays of other libraries, which raise errors of many types
        return None
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8 or array.ndim > 2:  # JSON floats have 64 bits
        return None
    return np.ascontiguousarray(array.reshape(-1, 1) if array.ndim < 2 else array)


def _encode(prediction: Any, media_type: str) -> Any:
    try:
        if FORMATS[media_type] != JSON_LINES:
            return encoder.encode(prediction, FORMATS[media_type])
        records = [prediction] if isinstance(prediction, dict | str) else prediction
        return "".join(f"{encoder.encode(record, JSON)}\n" for record in records)
    except Exception as error:  # json, numpy and the prediction's own class raise errors of many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        type_name = type(prediction).__name__
        message = f"a prediction of type {type_name} cannot be written as {media_type}: {reason}; define output_fn"
        raise HttpError(500, message) from error
