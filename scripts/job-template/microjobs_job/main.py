"""JOB_NAME: computes the trimmed average of the training targets. Replace this code with the code of your job."""

import json
import logging

import numpy as np

from microjobs.arrays import find_array_files, load_array
from microjobs.contract import Layout
from microjobs.errors import UserError
from microjobs.files import write_text

from .hyperparameters import Hyperparameters

logger = logging.getLogger("microjobs")


def train(hyperparameters: Hyperparameters) -> None:
    """Read the channel `train` and write the average to model.json.

    Raises:
        UserError: the input is invalid. Raise this error for problems that the user can fix.
    """
    layout = Layout.from_environment()
    files = find_array_files(layout.channel("train"), "y", "train")
    if not files:
        raise UserError(f"channel train has no y_train.npy in {layout.channel('train')}")
    targets = np.concatenate([load_array(path) for path in files])
    low, high = np.quantile(targets, [hyperparameters.trim, 1 - hyperparameters.trim])
    average = float(np.mean(targets[(targets >= low) & (targets <= high)]))
    write_text(layout.model / "model.json", json.dumps({"average": average}))
    logger.info("read %d targets; average without trimmed targets: %g", len(targets), average)
