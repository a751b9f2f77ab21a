"""Model bundles: complete and valid, or an error."""

import json
import re
import tarfile
from pathlib import Path

import pytest

from microjobs import archives, bundle
from microjobs.columns import CategoricalColumn, FittedColumns, NumericColumn, read_columns, write_columns
from microjobs.errors import UserError
from microjobs.scaler import Scaler, read_scaler, write_scaler
from tests.bundles import write_linear_bundle


def test_bundle_is_the_same_after_packing_and_unpacking(tmp_path: Path) -> None:
    write_linear_bundle(tmp_path / "model", [1.0, 2.0], 0.5, Scaler(count=[3, 3], mean=[0.0, 1.0], scale=[1.0, 2.0]))
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "model", ".")
    archives.unpack(tmp_path / "model.tar.gz", tmp_path / "copy")
    copy = bundle.read_bundle(tmp_path / "copy")
    assert copy.manifest.features == 2
    assert copy.scaler == read_scaler(tmp_path / "model")


@pytest.mark.parametrize("name", [bundle.MODEL_FILE, bundle.MANIFEST_FILE])
def test_missing_file_raises(name: str, tmp_path: Path) -> None:
    write_linear_bundle(tmp_path, [1.0], 0.0)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"has no {name}"):
        bundle.read_bundle(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"framework": "x", "features": "many"}'])
def test_damaged_manifest_raises(content: str, tmp_path: Path) -> None:
    write_linear_bundle(tmp_path, [1.0], 0.0)
    (tmp_path / bundle.MANIFEST_FILE).write_text(content)
    with pytest.raises(UserError, match="is not a manifest"):
        bundle.read_bundle(tmp_path)


def test_manifest_with_zero_features_raises(tmp_path: Path) -> None:
    write_linear_bundle(tmp_path, [1.0], 0.0)
    manifest = tmp_path / bundle.MANIFEST_FILE
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "features": 0}))
    with pytest.raises(UserError, match=re.escape(f"{manifest} has 0 features")):
        bundle.read_bundle(tmp_path)


def test_scaler_feature_count_mismatch_raises(tmp_path: Path) -> None:
    write_linear_bundle(tmp_path, [1.0], 0.0, Scaler(count=[1, 1], mean=[0.0, 0.0], scale=[1.0, 1.0]))
    with pytest.raises(UserError, match=r"scaler\.json has 2 features, but the model has 1"):
        bundle.read_bundle(tmp_path)


def test_column_feature_count_mismatch_raises(tmp_path: Path) -> None:
    columns = FittedColumns((CategoricalColumn("a", "one-hot", ("x", "y")),))
    write_linear_bundle(tmp_path, [1.0], 0.0, columns=columns)
    with pytest.raises(UserError, match=r"fitted-columns\.json has 2 features, but the model has 1"):
        bundle.read_bundle(tmp_path)


NUMERIC = {"name": "a", "type": "numeric", "mean": 0.0, "scale": 1.0, "fill": None}
ONE_HOT = {"name": "a", "type": "one-hot", "categories": ["x"], "fill": None, "unknown": None}


@pytest.mark.parametrize(
    "columns",
    [
        "",
        [],
        [1],
        [NUMERIC | {"type": "date"}],
        [NUMERIC | {"scale": 0}],
        [NUMERIC | {"mean": "NaN"}],
        [NUMERIC, NUMERIC],
        [ONE_HOT | {"categories": []}],
        [ONE_HOT | {"categories": ["x", "x"]}],
        [ONE_HOT | {"unknown": 1}],
        [{"name": "a", "type": "ordinal"}],
    ],
    ids=str,
)
def test_damaged_columns_raise(columns: object, tmp_path: Path) -> None:
    (tmp_path / "fitted-columns.json").write_text(json.dumps({"columns": columns, "ignored": []}))
    with pytest.raises(UserError, match=r"has no fitted columns .*: write it with the preprocess job"):
        read_columns(tmp_path)


def test_columns_are_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    columns = (
        NumericColumn("ä", mean=1 / 3, scale=2.5, fill=-0.1),
        CategoricalColumn("b", "one-hot", ("x", 'y"'), unknown=0.0),
        CategoricalColumn("c", "ordinal", ("x",), fill="x", unknown=-1.0),
    )
    write_columns(tmp_path, FittedColumns(columns, ignored=("id",)))
    assert read_columns(tmp_path) == FittedColumns(columns, ignored=("id",))


@pytest.mark.parametrize("content", ["", '{"count": [1]}', '{"count": [1], "mean": [0], "scale": [0]}'])
def test_damaged_scaler_raises(content: str, tmp_path: Path) -> None:
    (tmp_path / "scaler.json").write_text(content)
    with pytest.raises(UserError, match="scaler"):
        read_scaler(tmp_path)


def test_scaler_round_trips_to_the_last_digit(tmp_path: Path) -> None:
    scaler = Scaler(count=[3], mean=[0.1 + 0.2], scale=[1 / 3])
    write_scaler(tmp_path, scaler)
    assert read_scaler(tmp_path) == scaler
