"""Reads the outputs of jobs from S3."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import find_array_files, load_array
from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.runs.backend import Backend


def split_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an S3 URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def download(backend: Backend, uri: str, folder: Path) -> Path:
    """Download the objects below an S3 URI into a folder, which is emptied first.

    The path of a file in the folder is the rest of the object's key after the URI. Folder markers are left out.

    Raises:
        CommandError: the key of an object cannot be such a path.
    """
    bucket, prefix = split_uri(f"{uri}/")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for page in backend.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            name = item["Key"].removeprefix(prefix)
            if name and not name.endswith("/"):
                path = _make_parents(folder, name, f"s3://{bucket}/{item['Key']}")
                backend.s3.download_file(bucket, item["Key"], str(path))
    return folder


def _make_parents(folder: Path, name: str, uri: str) -> Path:
    """Return the path of a file below a folder, and make the folders between them."""
    path = folder / name
    try:
        if not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise NotADirectoryError("a part of its key is empty, `.` or `..`")
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise CommandError(f"{uri} cannot be a file below {folder}: {error}; rename or delete the object") from error
    return path


def read_test_arrays(folder: Path, array_name: str) -> NDArray[Any]:
    """Read the arrays `x` or `y` of the test data, all shards in order, with shape (rows, width)."""
    return np.concatenate([load_array(path) for path in find_array_files(folder, array_name, "test")])


def read_predictions(folder: Path) -> NDArray[Any]:
    """Read the output of batch-score: `predictions.npy`, or one file per shard."""
    return np.concatenate([load_array(path) for path in sorted(folder.glob("predictions*.npy"))])


def read_training_output(backend: Backend, model_uri: str) -> dict[str, bytes]:
    """Return the files in `output.tar.gz` of a training job, by name. The archive is in the model's folder."""
    bucket, key = split_uri(model_uri.removesuffix("model.tar.gz") + "output.tar.gz")
    content = backend.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        return {
            member.name.removeprefix("./"): file.read()
            for member in tar
            if (file := tar.extractfile(member)) is not None
        }


def read_metrics(training_output: dict[str, bytes]) -> dict[str, float]:
    """Return a trainer's `metrics.json`."""
    metrics: dict[str, float] = json.loads(training_output["metrics.json"])
    return metrics
