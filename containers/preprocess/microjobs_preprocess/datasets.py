"""Raw data sets: x and y arrays of a training split and a test split."""

import hashlib
import math
import urllib.request
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import save_array
from microjobs.errors import PlatformError, UserError

Arrays = dict[str, NDArray[Any]]

# The file that keras.datasets.boston_housing.load_data downloads, and the checksum that Keras expects.
BOSTON_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/boston_housing.npz"
BOSTON_SHA256 = "f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5"

DATASETS = ("diabetes", "straight-line", "boston")
SPLIT_SEED = 113
"""Seed with which Keras shuffles the Boston data before it splits them at 80 %."""
TRAIN_SHARE = 0.8


def make_arrays(name: str, source: Path | None) -> Arrays:
    """Return the arrays of a data set.

    Raises:
        UserError: the data set takes no source, or the source is not a valid file of this data set.
        PlatformError: there is no source, and the download failed.
    """
    if name == "boston":
        return load_boston_arrays(source)
    if source is not None:
        raise UserError(f"dataset {name} does not take --from {source}: only boston does")
    return load_diabetes_arrays() if name == "diabetes" else make_straight_line_arrays()


def load_diabetes_arrays() -> Arrays:
    """Return scikit-learn's diabetes data: 442 patients, 10 measured features, disease progression after a year."""
    # scikit-learn is imported only if it is needed, because the import takes longer than the rest of this job.
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=False)
    return shuffle_and_split(x, y)


def make_straight_line_arrays() -> Arrays:
    """Return y = 0.3 x + 0.9 at 100 points from 0 to 0.99, in single precision and in order."""
    x = (np.arange(100) * 0.01).astype(np.float32).reshape(-1, 1)
    y = np.float32(0.3) * x + np.float32(0.9)
    return _split(x, y)


def load_boston_arrays(source: Path | None) -> Arrays:
    """Return the Boston housing data, 506 census tracts with 13 features, with the split of Keras."""
    content = _download() if source is None else _read(source)
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{source or BOSTON_URL} is not a .npz file with arrays x and y: {error}") from error
    if x.ndim != 2 or y.shape != (len(x),):
        raise UserError(f"{source}: x has shape {x.shape} and y {y.shape}; (rows, features) and (rows,) are expected")
    return shuffle_and_split(x, y)


def shuffle_and_split(x: NDArray[Any], y: NDArray[Any]) -> Arrays:
    """Return the arrays of both splits, after the shuffling that Keras uses for the Boston data."""
    order = np.arange(len(x))
    np.random.RandomState(SPLIT_SEED).shuffle(order)
    return _split(x[order], y[order])


def write_arrays(arrays: Arrays, folder: Path, shard_count: int) -> list[str]:
    """Save each array in `shard_count` files. Return the names of the files.

    Raises:
        UserError: an array has fewer rows than there are shards.
    """
    for name, array in arrays.items():
        if len(array) < shard_count:
            raise UserError(f"--shards {shard_count}: {name} has only {len(array)} rows")
    names = []
    for name, array in arrays.items():
        for number, shard in enumerate(np.array_split(array, shard_count)):
            suffix = "" if shard_count == 1 else f"-{number:05}-of-{shard_count:05}"
            save_array(folder / f"{name}{suffix}.npy", shard)
            names.append(f"{name}{suffix}.npy")
    return names


def _split(x: NDArray[Any], y: NDArray[Any]) -> Arrays:
    rows = math.floor(len(x) * TRAIN_SHARE)
    return {"x_train": x[:rows], "y_train": y[:rows], "x_test": x[rows:], "y_test": y[rows:]}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"--from {path} cannot be read: {error.strerror}") from error


def _download() -> bytes:
    try:
        with urllib.request.urlopen(BOSTON_URL, timeout=30) as response:
            content: bytes = response.read(10_000_000)
    except OSError as error:
        raise PlatformError(
            f"cannot download {BOSTON_URL} ({error}): download it elsewhere and use --from FILE"
        ) from error
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != BOSTON_SHA256:
        raise PlatformError(
            f"{BOSTON_URL} has checksum {checksum}, not {BOSTON_SHA256}: download it elsewhere and use --from FILE"
        )
    return content
