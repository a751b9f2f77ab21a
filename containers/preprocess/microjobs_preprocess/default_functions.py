"""Default functions for scikit-learn models, which behave like the defaults of `sagemaker-scikit-learn-container`."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from microjobs.bundle import MODEL_FILE
from microjobs.errors import UserError
from microjobs.hosting.default_handlers import (
    DefaultFunctions,
    choose_bundle_defaults,
    decode_array,
    encode_array,
    predict_rows,
)
from microjobs.hosting.media_types import NPY, parse_media_type


def choose_defaults(defined_functions: Collection[str], model_dir: Path) -> DefaultFunctions:
    """Return the defaults for scikit-learn models. Return the defaults for bundles instead if the user defines no
    model_fn and the folder contains a bundle."""
    if "model_fn" not in defined_functions and (model_dir / MODEL_FILE).is_file():
        return choose_bundle_defaults(defined_functions, model_dir)
    return DefaultFunctions(_refuse_to_load, decode_features, predict_rows, encode_array)


def _refuse_to_load(model_dir: str) -> Any:
    """Raise UserError: a pickle runs code when it is loaded, so only the user's own code loads it, as on AWS."""
    raise UserError(f"{model_dir} has no bundle, and a scikit-learn model needs code: define model_fn")


def decode_features(body: bytes | str, content_type: str) -> Any:
    """Decode a body as an array. Numbers in text become float32; an npy array keeps its type. Raise the errors of
    `decode_array`."""
    array = decode_array(body, content_type)
    is_text = parse_media_type(content_type) != NPY
    return array.astype(np.float32) if is_text and array.dtype.kind in "fiub" else array
