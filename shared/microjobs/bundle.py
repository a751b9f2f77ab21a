"""The model bundle: a folder that both trainers write, and that serve and batch-score read.

    model.onnx       the model of any framework; it takes scaled features, float32 of shape (rows, features), and
                     returns predictions of shape (rows, 1)
    manifest.json    framework, number of features, signatures, metrics, hyperparameters
    scaler.json      mean and scale of each feature; absent if the data was not scaled
    fitted-columns.json or pipeline.onnx
                     how named columns become features, instead of scaler.json if the data were tables
    1/ or model.pth  the framework's own format

Standard library only; `microjobs.predictor` runs the model.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from microjobs import archives
from microjobs.columns import FILE_NAME as COLUMNS_FILE
from microjobs.columns import FittedColumns, read_columns
from microjobs.errors import UserError
from microjobs.files import write_bytes
from microjobs.scaler import FILE_NAME as SCALER_FILE
from microjobs.scaler import Scaler, read_scaler

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
PIPELINE_FILE = "pipeline.onnx"
ARCHIVE_FILE = "model.tar.gz"
BUNDLE_FILES = (MANIFEST_FILE, SCALER_FILE, COLUMNS_FILE, PIPELINE_FILE)
"""Files that only bundles have. If the manifest is missing, the other files belong to an incomplete bundle."""

SERVING_DEFAULT = "serving_default"
"""Signature that takes scaled features, as in the training."""
RAW = "raw"
"""Signature that takes unscaled features and scales them with the bundle's scaler, or takes named columns."""

MAX_FEATURES = 1_000_000


@dataclass(frozen=True)
class Manifest:
    """Content of manifest.json, which describes the model. `features` is the number of features."""

    framework: str
    features: int
    signatures: tuple[str, ...] = (SERVING_DEFAULT, RAW)
    metrics: Mapping[str, float] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A complete model folder."""

    folder: Path
    manifest: Manifest
    scaler: Scaler | None
    columns: FittedColumns | None

    @property
    def pipeline_file(self) -> Path | None:
        """The user's scikit-learn pipeline, a file that `microjobs.pipelines` wrote; None if there is none."""
        path = self.folder / PIPELINE_FILE
        return path if path.is_file() else None

    @property
    def has_named_columns(self) -> bool:
        """Whether signature `raw` takes named columns."""
        return self.columns is not None or self.pipeline_file is not None

    @property
    def model_file(self) -> Path:
        return self.folder / MODEL_FILE


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json. Call this after writing all other files: a folder with a manifest is a complete bundle."""
    write_bytes(folder / MANIFEST_FILE, json.dumps(asdict(manifest), indent=1).encode())


def read_bundle(folder: Path) -> Bundle:
    """Read a model folder.

    Raises:
        UserError: a file is missing or invalid.
    """
    for name in (MODEL_FILE, MANIFEST_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}, so it is not a bundle: use the model of a train job")
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        manifest = Manifest(
            framework=str(content["framework"]),
            features=int(content["features"]),
            signatures=tuple(str(name) for name in content["signatures"]),
            metrics=dict(content["metrics"]),
            hyperparameters=dict(content["hyperparameters"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{folder / MANIFEST_FILE} is not a manifest ({error!r}): train the model again") from error
    if not 1 <= manifest.features <= MAX_FEATURES:
        raise UserError(f"{folder / MANIFEST_FILE} has {manifest.features} features: train the model again")
    scaler, columns = read_scaler(folder), read_columns(folder)
    for name, features in (
        (SCALER_FILE, scaler and scaler.features),
        (COLUMNS_FILE, columns and len(columns.feature_names)),
    ):
        if features is not None and features != manifest.features:
            raise UserError(
                f"{folder}: {name} has {features} features, but the model has {manifest.features}: train the model "
                "again"
            )
    return Bundle(folder, manifest, scaler, columns)


@contextlib.contextmanager
def open_model_folder(folder: Path) -> Iterator[Path]:
    """Yield the folder with the model's files: `folder`, or a temporary folder with the content of its `model.tar.gz`.

    Raises:
        UserError: the archive is unsafe or damaged.
    """
    archive = folder / ARCHIVE_FILE
    if not archive.is_file() or (folder / MANIFEST_FILE).exists():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="model-") as work:
        archives.unpack(archive, Path(work) / "model")
        yield Path(work) / "model"
