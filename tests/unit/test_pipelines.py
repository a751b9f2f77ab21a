"""Pipelines of scikit-learn that a user's script saves for the model, and that signature `raw` runs."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from microjobs.bundle import PIPELINE_FILE, read_bundle
from microjobs.contract import DEFAULT_ROOT
from microjobs.errors import UserError
from microjobs.hosting.bundle_model import BundleModel
from microjobs.hosting.responses import HttpError
from microjobs.hosting.service import Invocation
from microjobs.pipelines import save_pipeline
from tests.bundles import write_linear_bundle
from tests.conftest import REPOSITORY

RAW_SIGNATURE = "signature_name=raw"
WEIGHTS = [1.0, 10.0, 100.0, 1000.0, 10000.0]


def make_table(rows: int = 100) -> pd.DataFrame:
    random = np.random.default_rng(0)
    age = random.normal(40, 10, rows)
    age[3] = np.nan
    return pd.DataFrame(
        {
            "age": age,
            "rooms": random.integers(1, 9, rows),
            "city": random.choice(["Bonn", "Köln", ""], rows),
            "grade": random.choice(["a", "b"], rows),
        }
    )


def make_sklearn_pipeline(*, handle_unknown: str = "ignore", missing_text: object = "") -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    encoder = OneHotEncoder(handle_unknown=handle_unknown)
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age", "rooms"]),
            (
                "city",
                make_pipeline(SimpleImputer(missing_values=missing_text, strategy="most_frequent"), encoder),
                ["city"],
            ),
            ("grade", OrdinalEncoder(), ["grade"]),
        ]
    )


def make_model(folder: Path, weights: list[float] = WEIGHTS, **options: Any) -> tuple[BundleModel, Any]:
    """Return a model with a pipeline, and the fitted pipeline."""
    write_linear_bundle(folder, weights, 0.0)
    pipeline = make_sklearn_pipeline(**options).fit(make_table())
    save_pipeline(pipeline, make_table(), folder)
    return BundleModel(read_bundle(folder)), pipeline


def invoke(model: BundleModel, body: str, media_type: str = "application/jsonlines") -> list[float]:
    response = model.invoke(Invocation(body.encode(), media_type, "text/csv", RAW_SIGNATURE))
    return [float(line) for line in response.body.splitlines()]


def test_rows_get_the_features_of_the_pipeline(tmp_path: Path) -> None:
    model, pipeline = make_model(tmp_path)
    table = make_table(50)
    expected = pipeline.transform(table) @ WEIGHTS
    np.testing.assert_allclose(invoke(model, table.to_json(orient="records", lines=True)), expected, rtol=1e-4)
    np.testing.assert_allclose(invoke(model, table.to_csv(index=False), "text/csv"), expected, rtol=1e-4)


def test_null_is_a_missing_text(tmp_path: Path) -> None:
    model, _ = make_model(tmp_path)
    row = '{"age": 40, "rooms": 3, "city": %s, "grade": "a"}'
    assert invoke(model, row % "null") == invoke(model, row % '""')


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ('{"age": 40, "rooms": 3, "city": "Bonn"}', "row 0 has no column 'grade': send the columns age, rooms, city"),
        ('{"age": "x", "rooms": 3, "city": "Bonn", "grade": "a"}', "row 0: column 'age' contains 'x': send a number"),
        ('{"age": 40, "rooms": 3, "city": "Rome", "grade": "a"}', "the pipeline rejects a value"),
    ],
)
def test_invalid_rows_get_status_400(row: str, error: str, tmp_path: Path) -> None:
    model, _ = make_model(tmp_path, handle_unknown="error")
    with pytest.raises(HttpError, match=error) as raised:
        invoke(model, row)
    assert raised.value.status == 400


def test_pipeline_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="makes 5 features, but the model has 2: train the model again"):
        make_model(tmp_path, weights=[1.0, 2.0])


def test_damaged_pipeline_is_refused(tmp_path: Path) -> None:
    write_linear_bundle(tmp_path, WEIGHTS, 0.0)
    (tmp_path / PIPELINE_FILE).write_bytes(b"not onnx")
    with pytest.raises(UserError, match=r"pipeline\.onnx is not a model that ONNX Runtime can load"):
        BundleModel(read_bundle(tmp_path))


def test_pipeline_that_makes_other_features_is_not_saved(tmp_path: Path) -> None:
    """Single precision loses the digits of these numbers, so the converted pipeline makes other features."""
    from sklearn.preprocessing import StandardScaler

    table = pd.DataFrame({"a": 1e9 + np.arange(10.0)})
    with pytest.raises(UserError, match=r"pipeline\.onnx makes .* as feature 0 of row \d, but the pipeline"):
        save_pipeline(StandardScaler().fit(table), table, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pipeline_that_cannot_be_converted_is_not_saved(tmp_path: Path) -> None:
    from sklearn.preprocessing import FunctionTransformer

    table = pd.DataFrame({"a": [1.0]})
    with pytest.raises(UserError, match="skl2onnx cannot convert the pipeline: "):
        save_pipeline(FunctionTransformer(np.log1p).fit(table), table, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_documented_script_saves_a_pipeline_for_the_model(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "using" / "tables.md").read_text(), re.DOTALL)
    for folder in ("input", "train", "test"):
        (tmp_path / folder).mkdir()
    for split in ("train", "test"):
        table = make_table().assign(price=1.0)
        table.to_csv(tmp_path / "input" / f"{split}.csv", index=False)
    exec(code.replace(f"{DEFAULT_ROOT}/processing", str(tmp_path)), {})  # noqa: S102  the code of the page
    write_linear_bundle(tmp_path / "train", [1.0, 0.0, 0.0, 0.0], 0.0)
    model = BundleModel(read_bundle(tmp_path / "train"))
    predictions = invoke(model, '{"age": null, "city": null}')
    x_train = np.load(tmp_path / "train" / "x_train.npy")
    np.testing.assert_allclose(predictions, x_train[3, 0], rtol=1e-5)  # the age of row 3 is missing
