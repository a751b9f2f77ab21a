"""Encoders that convert predictions to text or bytes, as `sagemaker-inference` does."""

import io
import json
from typing import Any

import numpy as np

from . import content_types, errors


def _array_to_json(array_like: Any) -> str:
    """Convert any JSON value to text, with arrays as nested lists."""

    def default(value: Any) -> Any:
        if hasattr(value, "tolist"):
            return value.tolist()
        return json.JSONEncoder().default(value)

    return json.dumps(array_like, default=default)


def _array_to_npy(array_like: Any) -> bytes:
    """Convert to .npy, without pickle: an array of objects raises ValueError."""
    buffer = io.BytesIO()
    np.save(buffer, array_like, allow_pickle=False)
    return buffer.getvalue()


def _array_to_csv(array_like: Any) -> str:
    """Convert an array of one or two dimensions to one line per row."""
    stream = io.StringIO()
    np.savetxt(stream, array_like, delimiter=",", fmt="%s")
    return stream.getvalue()


_encoder_map = {
    content_types.NPY: _array_to_npy,
    content_types.CSV: _array_to_csv,
    content_types.JSON: _array_to_json,
}

SUPPORTED_CONTENT_TYPES = set(_encoder_map)


def encode(array_like: Any, content_type: str) -> Any:
    """Encode a prediction.

    Raises:
        UnsupportedFormatError: the type has no encoder.
    """
    if content_type not in _encoder_map:
        raise errors.UnsupportedFormatError(content_type)
    return _encoder_map[content_type](array_like)
