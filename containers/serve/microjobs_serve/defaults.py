"""What is done where a user's program defines no function for it.

Around the user's predict_fn the defaults are those of `sagemaker-inference`. Where predict_fn is missing too, which
that package refuses, bodies are rows and answers are predictions as those of a bundle.
"""

from pathlib import Path
from typing import Any

import numpy as np

from microjobs.bundle import read_bundle
from microjobs.predictor import Predictor

from . import formats, media
from .answers import Problem
from .toolkit import decoder, encoder, errors, utils


def load_bundle(model_dir: str) -> Predictor:
    return Predictor(read_bundle(Path(model_dir)))


def decode_array(body: bytes | str, content_type: str) -> Any:
    """Decode a body as `sagemaker-inference` does, and JSON lines of numbers too.

    Raises:
        Problem: 415, no decoder for the type; 400, a body that is not of it.
    """
    given = media.plain(content_type)
    if media.FORMATS.get(given) == media.JSON_LINES:
        return decode_rows(body, content_type)
    try:
        return decoder.decode(body, given)
    except errors.UnsupportedFormatError:
        offered = f"{media.OFFERED}, or define input_fn"
        raise Problem(415, f"Content-Type {media.shorten(content_type)!r} cannot be read: send {offered}") from None


def encode_array(prediction: Any, accept: str) -> tuple[Any, str]:
    """Encode a prediction as `sagemaker-inference` does, and as JSON lines too.

    Raises:
        Problem: 406, no encoder for the type; 500, a prediction that the type cannot hold.
    """
    exact = next((name for name in utils.parse_accept(accept) if name in encoder.SUPPORTED_CONTENT_TYPES), None)
    wanted = exact or media.choose(accept, media.JSON)
    return _encode(prediction, wanted), wanted


def decode_rows(body: bytes | str, content_type: str) -> formats.Numbers:
    """Decode a body as a bundle does: numbers, a row per record.

    Raises:
        Problem: 415, no decoder for the type; 400, a body that is not of it.
    """
    given, _ = media.negotiate(content_type, "")
    content = body.encode() if isinstance(body, str) else formats.utf8(body, content_type)
    return formats.decode(content, given).copy()  # the decoders' own may be read-only


def predict_rows(data: Any, model: Any) -> Any:
    if isinstance(model, Predictor):
        return model.predict(formats.as_rows(data, model.features))
    predict = getattr(model, "predict", None)
    return predict(data) if callable(predict) else model(data)


def can_predict(model: object) -> bool:
    """Whether `predict_rows` knows what to do with a model."""
    return callable(model) or callable(getattr(model, "predict", None))


def encode_predictions(prediction: Any, accept: str) -> tuple[Any, str]:
    """Encode a prediction as a bundle does, whatever its type: in JSON as `predictions`, an object as it is.

    Raises:
        Problem: 406, no encoder for the type; 500, a prediction that the type cannot hold.
    """
    wanted = media.choose(accept, media.JSON)
    numbers = _numbers(prediction)
    if numbers is not None:
        return formats.encode(numbers, wanted), wanted
    if media.FORMATS[wanted] == media.JSON and not isinstance(prediction, dict | str):
        prediction = {"predictions": prediction}
    return _encode(prediction, wanted), wanted


def _numbers(prediction: Any) -> formats.Numbers | None:
    """Numbers with one or two dimensions as rows; None for any other prediction."""
    try:
        array = np.asarray(prediction)
    except Exception:  # ragged lists, and whatever other libraries' arrays raise
        return None
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8 or array.ndim > 2:  # JSON has no longer floats
        return None
    return np.ascontiguousarray(array.reshape(-1, 1) if array.ndim < 2 else array)


def _encode(prediction: Any, wanted: str) -> Any:
    form = media.FORMATS[wanted]
    try:
        if form != media.JSON_LINES:
            return encoder.encode(prediction, form)
        records = [prediction] if isinstance(prediction, dict | str) else prediction
        return "".join(f"{encoder.encode(record, media.JSON)}\n" for record in records)
    except Exception as error:  # json, numpy and the prediction's own class raise many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        kind = type(prediction).__name__
        raise Problem(
            500, f"a prediction of type {kind} cannot be written as {wanted}: {reason}; define output_fn"
        ) from error
