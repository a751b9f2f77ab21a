"""User code for sagemaker-inference, with the decoders and encoders of that package."""

from typing import Any

import model
import numpy as np


def model_fn(_model_dir: str) -> Any:
    return model.load()


def predict_fn(data: Any, session: Any) -> Any:
    rows = data.item()["instances"] if data.dtype == object else data
    return model.predict(session, np.array(rows))
