"""A user's code for sagemaker-inference; its own decoders and encoders do the rest."""

from typing import Any

import model
import numpy as np


def model_fn(_model_dir: str) -> Any:
    return model.load()


def predict_fn(data: Any, session: Any) -> Any:
    rows = data.item()["instances"] if data.dtype == object else data
    return model.predict(session, np.array(rows))
