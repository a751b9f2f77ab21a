"""What jobs left in S3, read."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import array_files, load_array
from microjobs_orchestrator.runs.backend import Backend


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 address."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def get(backend: Backend, uri: str) -> bytes:
    """An object's content."""
    bucket, key = split(uri)
    return backend.s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def fetch(backend: Backend, uri: str, folder: Path) -> Path:
    """Download the objects below an address into a folder, new each time."""
    bucket, prefix = split(f"{uri}/")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for page in backend.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", []):
            target = folder / Path(found["Key"]).name
            backend.s3.download_file(bucket, found["Key"], str(target))
    return folder


def read_arrays(folder: Path, kind: str) -> NDArray[Any]:
    """`x_test` (or `y_test`) of a folder, all shards of it in order, shape (rows, width)."""
    return np.concatenate([load_array(path) for path in array_files(folder, kind, "test")])


def read_predictions(folder: Path) -> NDArray[Any]:
    """What batch-score wrote: `predictions.npy`, or a file a shard."""
    return np.concatenate([load_array(path) for path in sorted(folder.glob("predictions*.npy"))])


def read_output(backend: Backend, model_artifacts: str) -> dict[str, bytes]:
    """The files of a training job's `output.tar.gz`, which lies beside its model."""
    content = get(backend, model_artifacts.removesuffix("model.tar.gz") + "output.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        return {
            member.name.removeprefix("./"): file.read()
            for member in tar
            if (file := tar.extractfile(member)) is not None
        }


def read_metrics(output: dict[str, bytes]) -> dict[str, float]:
    """A trainer's `metrics.json`."""
    metrics: dict[str, float] = json.loads(output["metrics.json"])
    return metrics
