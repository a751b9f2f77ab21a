"""Batch scoring: predictions and their error, on one host, or on two hosts with parts of the data."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from microjobs import arrays
from microjobs.bundle import read_bundle
from microjobs.columns import FittedColumns, NumericColumn
from microjobs.contract import Layout, ResourceConfig, read_failure, write_processing_resource_config
from microjobs.predictor import Predictor
from microjobs.scaler import Scaler
from microjobs_batch_score import scoring
from tests.bundles import write_linear_bundle
from tests.forks import start_job
from tests.unit.hosts import run_on_all_hosts

Arrays = Mapping[str, NDArray[Any]]
WEIGHTS = [1.0, -2.0, 0.5]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "ml")
    write_input(layout, {})
    return layout


def write_input(layout: Layout, input_arrays: Arrays) -> None:
    """Write an extracted model and test arrays."""
    write_linear_bundle(layout.processing("model"), WEIGHTS, 3.0)
    layout.processing("test").mkdir(parents=True, exist_ok=True)
    for name, array in input_arrays.items():
        np.save(layout.processing("test") / f"{name}.npy", array)


def make_arrays(row_count: int = 40_000) -> dict[str, NDArray[np.float64]]:
    random = np.random.default_rng(0)
    x = random.normal(size=(row_count, 3))
    return {"x_test": x, "y_test": x @ WEIGHTS + 3.0 + random.normal(0, 2, row_count)}


def run_job(layout: Layout, *arguments: str, exit_code: int = 0) -> Path:
    """Run batch-score; return the folder of its results."""
    process = start_job("batch-score", layout, *arguments)
    log, _ = process.communicate(timeout=120)
    assert process.returncode == exit_code, log
    return layout.processing("batch")


def compute_expected_mse(input_arrays: Arrays) -> float:
    predicted = input_arrays["x_test"] @ WEIGHTS + 3.0
    return float(np.mean((predicted - input_arrays["y_test"]) ** 2))


def test_files_of_other_programs_are_skipped(layout: Layout) -> None:
    write_input(layout, make_arrays(100))
    for folder in ("model", "test"):
        for name in (".DS_Store", "_SUCCESS"):
            (layout.processing(folder) / name).touch()
    run_job(layout)


def test_predictions_and_report_are_written(layout: Layout) -> None:
    data = make_arrays()
    write_input(layout, data)
    batch = run_job(layout)
    predictions = np.load(batch / "predictions.npy")
    np.testing.assert_allclose(predictions, data["x_test"] @ WEIGHTS + 3.0, atol=1e-5)
    assert predictions.shape == (40_000,)
    report = json.loads((batch / "report.json").read_text())
    assert report["rows"] == 40_000
    assert report["mse"] == pytest.approx(compute_expected_mse(data), rel=1e-5)
    assert (batch / "score-report.txt").read_text() == f"Test MSE : {report['mse']}"
    assert (batch / "predicted-versus-target.png").read_bytes()[:4] == b"\x89PNG"


def test_model_archive_of_a_training_job_is_extracted(layout: Layout, tmp_path: Path) -> None:
    write_input(layout, make_arrays(100))
    layout.processing("model").rename(tmp_path / "model")
    layout.processing("model").mkdir()
    with tarfile.open(layout.processing("model") / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "model", ".")
    assert (run_job(layout) / "predictions.npy").exists()


def test_raw_signature_scales_inside_the_model(layout: Layout) -> None:
    data = make_arrays(100)
    write_input(layout, {"x_test": data["x_test"] * 2 + 1, "y_test": data["y_test"]})
    write_linear_bundle(
        layout.processing("model"), WEIGHTS, 3.0, Scaler(count=[9] * 3, mean=[1.0] * 3, scale=[2.0] * 3)
    )
    batch = run_job(layout, "--signature", "raw")
    np.testing.assert_allclose(np.load(batch / "predictions.npy"), data["x_test"] @ WEIGHTS + 3.0, atol=1e-5)


def test_raw_signature_of_named_columns_is_refused(layout: Layout) -> None:
    write_input(layout, make_arrays(100))
    columns = FittedColumns(tuple(NumericColumn(name, mean=0.0, scale=1.0) for name in "abc"))
    write_linear_bundle(layout.processing("model"), WEIGHTS, 3.0, columns=columns)
    run_job(layout, "--signature", "raw", exit_code=2)
    assert "signature raw of this model takes named columns, not arrays" in (read_failure(layout) or "")


def test_training_arrays_are_not_scored(layout: Layout) -> None:
    write_input(layout, make_arrays(100) | {"x_train": np.zeros((5, 3)), "y_train": np.zeros(5)})
    assert [path.name for path in run_job(layout).glob("*.npy")] == ["predictions.npy"]


def test_without_targets_only_predictions_are_written(layout: Layout) -> None:
    write_input(layout, {"x_test": make_arrays(100)["x_test"]})
    batch = run_job(layout)
    assert (batch / "predictions.npy").exists()
    assert json.loads((batch / "report.json").read_text()) == {"rows": 100}
    assert "unknown (no targets)" in (batch / "score-report.txt").read_text()


@pytest.mark.parametrize(
    ("input_arrays", "error"),
    [
        ({}, "no test data on any host"),
        ({"x_test": np.zeros((5, 4)), "y_test": np.zeros(5)}, "rows have shape (5, 4): the model takes (rows, 3)"),
        ({"x_test": np.zeros((5, 3)), "y_test": np.zeros(4)}, "y_test.npy has 4 rows but x_test.npy has 5"),
        ({"x_test": np.full((5, 3), np.nan), "y_test": np.zeros(5)}, "x_test.npy row 0 contains NaN"),
        ({"x_test": np.zeros((5, 3)), "y_test": np.zeros((5, 2))}, "y_test.npy has 2 values per row"),
    ],
    ids=["none", "width", "rows", "nan", "targets"],
)
def test_invalid_arrays_are_refused_without_a_report(input_arrays: Arrays, error: str, layout: Layout) -> None:
    write_input(layout, input_arrays)
    batch = run_job(layout, exit_code=2)
    assert error in (read_failure(layout) or "")
    assert list(batch.iterdir()) == []


@pytest.mark.parametrize(
    ("x", "y", "error"),
    [
        (1e39, 0.0, "x_test.npy row 30000: the model predicts"),
        (0.0, np.nan, "y_test.npy row 30000 contains NaN"),
        (0.0, 1e200, "too large to square"),
    ],
)
def test_invalid_row_leaves_no_predictions(x: float, y: float, error: str, layout: Layout) -> None:
    data = make_arrays()
    data["x_test"][30_000, 1], data["y_test"][30_000] = x, y
    write_input(layout, data)
    assert list(run_job(layout, exit_code=2).iterdir()) == []
    assert error in (read_failure(layout) or "")


def test_failed_job_removes_predictions_of_other_files(layout: Layout) -> None:
    x = make_arrays(100)["x_test"]
    write_input(layout, {"x_test-00000-of-00002": x, "x_test-00001-of-00002": np.full((5, 3), np.inf)})
    assert list(run_job(layout, exit_code=2).iterdir()) == []


def test_number_of_points_in_the_plot_is_limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1000)
    write_linear_bundle(tmp_path, WEIGHTS, 3.0)
    data = make_arrays(9_000)
    for name, array in data.items():
        np.save(tmp_path / f"{name}.npy", array)
    result = scoring.score_file(
        Predictor(read_bundle(tmp_path)),
        arrays.open_array(tmp_path / "x_test.npy"),
        scoring.open_targets(tmp_path / "y_test.npy"),
        tmp_path / "predictions.npy",
        "serving_default",
    )
    assert result.plot_targets == data["y_test"][::5].tolist()
    assert len(result.plot_targets) <= scoring.MAX_PLOT_POINTS


@pytest.mark.parametrize("model", ["none", "two archives", "no onnx"])
def test_invalid_model_is_refused(model: str, layout: Layout) -> None:
    write_input(layout, make_arrays(10))
    folder = layout.processing("model")
    (folder / "model.onnx").unlink()
    if model == "two archives":
        (folder / "a.tar.gz").touch()
        (folder / "b.tar.gz").touch()
    if model == "no onnx":
        (folder / "model.onnx").write_bytes(b"not a model")
    run_job(layout, exit_code=2)
    assert "model" in (read_failure(layout) or "")


@pytest.fixture
def hosts(tmp_path: Path) -> dict[str, Layout]:
    """Two hosts on loopback addresses, with different roots."""
    names = ("algo-1", "algo-2")
    layouts = {name: Layout(tmp_path / name) for name in names}
    for name, layout in layouts.items():
        write_processing_resource_config(layout, ResourceConfig(name, names))
        layout.processing("test").mkdir(parents=True)
    return layouts


def split_in_two(input_arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {
        f"{name}-{number:05}-of-00002": part
        for name, array in input_arrays.items()
        for number, part in enumerate(np.array_split(array, 2))
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "are_targets_swapped", [False, True], ids=["targets-on-the-same-host", "targets-on-the-other-host"]
)
def test_two_hosts_with_shards_write_one_report(
    are_targets_swapped: bool, hosts: dict[str, Layout], layout: Layout
) -> None:
    data = make_arrays(1000)
    first, second = hosts.values()
    for number, (own_host, other_host) in enumerate([(first, second), (second, first)]):
        half = slice(number * 500, number * 500 + 500)
        write_input(own_host, {f"x_test-{number:05}-of-00002": data["x_test"][half]})
        write_input(
            other_host if are_targets_swapped else own_host, {f"y_test-{number:05}-of-00002": data["y_test"][half]}
        )
    run_on_all_hosts("batch-score", hosts)
    report = json.loads((first.processing("batch") / "report.json").read_text())
    assert report["rows"] == 1000
    write_input(layout, split_in_two(data))
    one_host_report = json.loads((run_job(layout) / "report.json").read_text())
    assert report == pytest.approx(one_host_report, rel=1e-12)
    output_names = [path.name for layout in hosts.values() for path in layout.processing("batch").iterdir()]
    assert sorted(name for name in output_names if name.endswith(".npy")) == [
        "predictions-00000-of-00002.npy",
        "predictions-00001-of-00002.npy",
    ]
    assert len(output_names) == len(set(output_names))


@pytest.mark.slow
def test_replicated_data_is_scored_once(hosts: dict[str, Layout]) -> None:
    data = make_arrays(1000)
    for layout in hosts.values():
        write_input(layout, data)
    run_on_all_hosts("batch-score", hosts)
    output_names = [path.name for layout in hosts.values() for path in layout.processing("batch").iterdir()]
    assert output_names.count("predictions.npy") == 1
