"""Tests of preprocessing on one host: it gives scikit-learn's results, and checks all input before it writes output."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from microjobs.arrays import FILE_NAME_PATTERN
from microjobs.contract import Layout, ResourceConfig, read_failure, write_processing_resource_config
from microjobs.scaler import Scaler, read_scaler
from microjobs_preprocess import datasets
from tests.forks import make_job_environment, start_job
from tests.unit.hosts import run_on_all_hosts

Arrays = dict[str, NDArray[Any]]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.processing("input").mkdir(parents=True)
    return layout


def make_arrays(row_count: int = 50_000) -> Arrays:
    random = np.random.default_rng(0)
    x = random.normal([0, 100, -5, 1e-6], [1, 10, 300, 1e-7], (row_count, 4))
    return {"x_train": x, "y_train": random.normal(size=row_count), "x_test": x[:10] + 1, "y_test": np.zeros(10)}


def preprocess(
    layout: Layout, *arguments: str, arrays: Arrays | None = None, command_prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the job as its image does, on files with these arrays."""
    for name, array in (arrays or {}).items():
        np.save(layout.processing("input") / f"{name}.npy", array)
    if command_prefix:
        command = [*command_prefix, sys.executable, "-m", "microjobs", *arguments]
        environment = make_job_environment("preprocess", layout)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    process = start_job("preprocess", layout, *arguments)
    log, _ = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.wait(), stderr=log)


def load_output(layout: Layout, name: str) -> NDArray[Any]:
    match = FILE_NAME_PATTERN.fullmatch(name)
    assert match is not None
    array: NDArray[Any] = np.load(layout.processing(match["split"]) / name)
    return array


def make_standard_scaler() -> Any:
    """Return scikit-learn's scaler, which takes seconds to import."""
    from sklearn.preprocessing import StandardScaler

    return StandardScaler()


def read_written_scaler(layout: Layout) -> Scaler:
    scaler = read_scaler(layout.processing("train"))
    assert scaler is not None
    return scaler


def test_result_equals_scikit_learn(layout: Layout) -> None:
    arrays = make_arrays()
    assert preprocess(layout, arrays=arrays).returncode == 0
    expected = make_standard_scaler().fit(arrays["x_train"])
    np.testing.assert_allclose(
        load_output(layout, "x_train.npy"), expected.transform(arrays["x_train"]), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        load_output(layout, "x_test.npy"), expected.transform(arrays["x_test"]), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(read_written_scaler(layout).mean, expected.mean_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(read_written_scaler(layout).scale, expected.scale_, rtol=1e-9, atol=1e-12)
    assert read_written_scaler(layout).count == [50_000] * 4


def test_targets_are_copied_byte_for_byte(layout: Layout) -> None:
    preprocess(layout, arrays=make_arrays(100))
    for name in ("train/y_train.npy", "test/y_test.npy"):
        source = layout.processing("input") / Path(name).name
        assert (layout.root / "processing" / name).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 / 3])
def test_constant_feature_is_scaled_by_1(value: float, layout: Layout) -> None:
    arrays = make_arrays(40_000)
    arrays["x_train"][:, 2] = value
    preprocess(layout, arrays=arrays)
    assert read_written_scaler(layout).scale[2] == 1.0
    np.testing.assert_allclose(load_output(layout, "x_train.npy")[:, 2], 0.0, atol=1e-6)


@pytest.mark.parametrize(("input_type", "output_type"), [("<f4", "float32"), (">f8", "float64"), ("<i8", "float64")])
def test_floats_keep_their_type_and_integers_become_doubles(input_type: str, output_type: str, layout: Layout) -> None:
    x = np.arange(40).reshape(10, 4).astype(input_type)
    preprocess(layout, arrays={"x_train": x, "y_train": np.zeros(10)})
    assert load_output(layout, "x_train.npy").dtype == output_type


def test_shards_keep_their_names_and_share_one_scaler(layout: Layout) -> None:
    arrays = make_arrays(1000)
    shards = {
        f"{name}-{number:05}-of-00003": part
        for name in ("x_train", "y_train")
        for number, part in enumerate(np.array_split(arrays[name], 3))
    }
    preprocess(layout, arrays=shards)
    expected = make_standard_scaler().fit_transform(arrays["x_train"])
    actual = np.concatenate([load_output(layout, f"x_train-{number:05}-of-00003.npy") for number in range(3)])
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


def test_one_host_does_not_import_dask(layout: Layout) -> None:
    result = preprocess(layout, arrays=make_arrays(100), command_prefix=["env", "PYTHONPROFILEIMPORTTIME=1"])
    assert "microjobs.hosts" in result.stderr
    assert "distributed" not in result.stderr


@pytest.mark.slow
def test_two_hosts_give_the_results_of_one_host(layout: Layout, tmp_path: Path) -> None:
    """The first host has one shard, and the second host has two. The last feature is much smaller than the first."""
    arrays = make_arrays()
    shards = {
        f"{name}-{number:05}-of-00003": part
        for name in ("x_train", "y_train", "x_test")
        for number, part in enumerate(np.array_split(arrays[name], 3))
    }
    hosts = {name: Layout(tmp_path / name) for name in ("algo-1", "algo-2")}
    for name, host in hosts.items():
        host.processing("input").mkdir(parents=True)
        write_processing_resource_config(host, ResourceConfig(name, tuple(hosts)))
    for name, array in shards.items():
        np.save(hosts["algo-1" if "-00001-" in name else "algo-2"].processing("input") / f"{name}.npy", array)
    run_on_all_hosts("preprocess", hosts)
    assert preprocess(layout, arrays=shards).returncode == 0
    output_files = [path for host in hosts.values() for path in host.root.glob("processing/t*/*")]
    assert sorted(path.name for path in output_files) == sorted([*(f"{name}.npy" for name in shards), "scaler.json"])
    for path in output_files:
        expected = layout.root / path.relative_to(path.parents[2])
        if path.suffix == ".npy":
            np.testing.assert_allclose(np.load(path), np.load(expected), rtol=1e-12, atol=1e-12)
        else:
            assert path.read_text() == expected.read_text()


def make_arrays_with_value(name: str, row: int, value: float) -> Arrays:
    arrays = make_arrays(20_000)
    arrays[name][(row, 1) if name.startswith("x") else row] = value
    return arrays


def make_arrays_without(*names: str) -> Arrays:
    return {name: array for name, array in make_arrays(100).items() if name not in names}


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        (
            make_arrays_with_value("x_train", 17_000, np.nan),
            "x_train.npy row 17000 contains nan: replace the value or drop the row, or use --allow",
        ),
        (
            make_arrays_with_value("x_test", 3, np.inf),
            "x_test.npy row 3 contains inf: replace the value or drop the row",
        ),
        (make_arrays_with_value("y_train", 17_000, np.nan), "y_train.npy row 17000 contains NaN or infinity"),
        (make_arrays_with_value("x_train", 0, 1e300), "x_train.npy rows 0 to 19999: values too large"),
        (make_arrays(100) | {"x_test": np.zeros((10, 5))}, "x_train.npy has 4 features but x_test.npy has 5"),
        (make_arrays(100) | {"y_train": np.zeros(99)}, "y_train.npy has 99 rows but x_train.npy has 100"),
        (make_arrays(100) | {"x_train": np.zeros(100)}, "x_train.npy has shape (100,): features must be"),
        (
            make_arrays(100) | {"x_train": np.zeros((0, 4)), "y_train": np.zeros(0)},
            "no training data on any host",
        ),
        (
            make_arrays_without("x_train", "y_train"),
            "no training data on any host: the input contains x_test.npy, y_test.npy",
        ),
        (
            make_arrays_without("x_train", "y_train", "x_test", "y_test"),
            "no training data on any host: the input contains no",
        ),
        (make_arrays_without("x_test"), "y_test.npy has no features: x_test.npy is missing"),
        (make_arrays(100) | {"notes": np.zeros(1)}, "unexpected 'notes.npy' in the input"),
        (make_arrays(100) | {"x_train-00000-of-00002": np.zeros((1, 4))}, "do not belong together"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_invalid_input_is_refused_before_output_is_written(arrays: Arrays, error: str, layout: Layout) -> None:
    result = preprocess(layout, arrays=arrays)
    assert result.returncode == 2
    assert error in (read_failure(layout) or "")
    assert list(layout.root.glob("processing/t*/*")) == []


def test_failed_job_removes_its_output(layout: Layout) -> None:
    (layout.processing("train") / "y_train.npy").mkdir(parents=True)  # a file cannot replace this folder
    assert preprocess(layout, arrays=make_arrays(100)).returncode != 0
    assert [path.name for path in layout.root.glob("processing/t*/*")] == ["y_train.npy"]


def test_script_folder_of_the_sdk_is_ignored(layout: Layout) -> None:
    (layout.processing("input") / "code").mkdir()
    assert preprocess(layout, arrays=make_arrays(100)).returncode == 0


def test_raw_data_can_be_preprocessed(layout: Layout) -> None:
    """With `--output`, `dataset` writes to the input folder of the next job, as in the README of the image.

    The path in the option begins with the contract's root, although SAGEMAKER_BASE_DIR names another root.
    """
    folder = layout.processing("input")
    assert preprocess(layout, "dataset", "straight-line", "--output", layout.to_contract_path(folder)).returncode == 0
    assert preprocess(layout).returncode == 0
    assert read_written_scaler(layout).count == [80]


def test_files_of_other_programs_are_skipped_with_a_warning(layout: Layout) -> None:
    folder = layout.processing("input")
    files = (".DS_Store", "._x_train.npy", "_SUCCESS", "_committed_1", "Thumbs.db", ".ipynb_checkpoints/x_train.npy")
    for name in (*files, "__MACOSX/x_train.npy"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "empty").mkdir()  # some S3 clients create an object for a folder
    result = preprocess(layout, arrays=make_arrays(100))
    assert result.returncode == 0, result.stderr
    (warning,) = [line for line in result.stderr.splitlines() if "WARNING" in line]
    assert all(name.partition("/")[0] in warning for name in (*files, "__MACOSX", "empty"))


def test_table_is_refused_if_the_option_columns_is_not_set(layout: Layout) -> None:
    (layout.processing("input") / "train.csv").write_text("age\n1\n")
    assert preprocess(layout).returncode == 2
    assert (read_failure(layout) or "").endswith("; preprocess reads tables with --columns")


def test_folder_with_the_name_of_an_array_is_refused(layout: Layout) -> None:
    (layout.processing("input") / "x_train.npy").mkdir()
    assert preprocess(layout).returncode == 2


@pytest.mark.parametrize(("argument", "expected_value"), [((), np.nan), (("nan",), np.nan), (("mean",), 0.0)])
def test_statistics_ignore_missing_values(argument: tuple[str, ...], expected_value: float, layout: Layout) -> None:
    arrays = make_arrays_with_value("x_train", 17_000, np.nan)
    assert preprocess(layout, "--allow-missing", *argument, arrays=arrays).returncode == 0
    expected = make_standard_scaler().fit(arrays["x_train"])
    np.testing.assert_allclose(read_written_scaler(layout).mean, expected.mean_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(read_written_scaler(layout).scale, expected.scale_, rtol=1e-9, atol=1e-12)
    assert read_written_scaler(layout).count == [20_000, 19_999, 20_000, 20_000]
    np.testing.assert_equal(load_output(layout, "x_train.npy")[17_000, 1], expected_value)


def test_infinity_is_never_a_missing_value(layout: Layout) -> None:
    arrays = make_arrays_with_value("x_train", 5, np.inf)
    arrays["x_train"][5, 0] = np.nan
    result = preprocess(layout, "--allow-missing", arrays=arrays)
    assert result.returncode == 2
    assert "x_train.npy row 5 contains inf" in (read_failure(layout) or "")


def test_feature_without_values_is_refused(layout: Layout) -> None:
    arrays = make_arrays(100)
    arrays["x_train"][:, 3] = np.nan
    assert preprocess(layout, "--allow-missing", arrays=arrays).returncode == 2
    assert "feature 3 has no value" in (read_failure(layout) or "")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(layout: Layout) -> None:
    """The memory limit of the job is smaller than the array x. The input files are sparse, and contain only zeros."""
    for name, shape in (("x", (2_000_000, 32)), ("y", (2_000_000,))):  # the arrays have 512 MB and 16 MB
        np.lib.format.open_memmap(layout.processing("input") / f"{name}_train.npy", "w+", np.float64, shape)
    result = preprocess(layout, command_prefix=["prlimit", f"--data={256_000_000}"])
    assert result.returncode == 0, result.stderr


def test_unknown_argument_is_reported(layout: Layout) -> None:
    assert preprocess(layout, "--inptu", "x").returncode == 2
    assert "--inptu" in (read_failure(layout) or "")


# --- raw data ---


def make_dataset(layout: Layout, *arguments: str) -> dict[str, NDArray[Any]]:
    result = preprocess(layout, "dataset", *arguments)
    assert result.returncode == 0, result.stderr
    return {path.stem: np.load(path) for path in sorted(layout.processing("output").iterdir())}


def test_diabetes_data_has_442_patients_and_is_not_scaled(layout: Layout) -> None:
    arrays = make_dataset(layout, "diabetes")
    assert {name: array.shape for name, array in arrays.items()} == {
        "x_train": (353, 10),
        "y_train": (353,),
        "x_test": (89, 10),
        "y_test": (89,),
    }
    assert arrays["x_train"][:, 0].min() >= 19  # the first feature is the age in years, which is not standardised


def test_straight_line_has_the_documented_equation(layout: Layout) -> None:
    arrays = make_dataset(layout, "straight-line")
    assert arrays["x_train"].dtype == np.float32
    assert (arrays["x_train"].shape, arrays["x_test"].shape) == ((80, 1), (20, 1))
    np.testing.assert_allclose(arrays["y_test"], 0.3 * arrays["x_test"] + 0.9, rtol=1e-6)


def test_boston_data_has_the_split_of_keras(layout: Layout, boston: Path) -> None:
    (layout.processing("input") / "boston.npz").write_bytes(boston.read_bytes())
    arrays = make_dataset(layout, "boston", "--from", "boston.npz")
    assert (arrays["x_train"].shape, arrays["x_test"].shape) == ((404, 13), (102, 13))
    assert arrays["x_train"][0, 0] == pytest.approx(1.23247)
    assert arrays["y_train"][0] == pytest.approx(15.2)


def test_preprocess_reads_shards_of_a_dataset(layout: Layout) -> None:
    arrays = make_dataset(layout, "diabetes", "--shards", "4")
    assert sorted(arrays)[:2] == ["x_test-00000-of-00004", "x_test-00001-of-00004"]
    assert preprocess(layout, arrays=arrays).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["bostn"], "invalid choice: 'bostn'"),
        (["boston", "--from", "none.npz"], "none.npz cannot be read"),
        (["boston", "--from", "damaged.npz"], "damaged.npz is not a .npz file with arrays x and y"),
        (["diabetes", "--from", "x.npz"], "only boston does"),
        (["straight-line", "--shards", "0"], "--shards"),
        (["straight-line", "--shards", "50"], "x_test has only 20 rows"),
    ],
)
def test_invalid_dataset_is_refused(arguments: list[str], error: str, layout: Layout) -> None:
    (layout.processing("input") / "damaged.npz").write_bytes(b"PK\x03\x04")
    assert preprocess(layout, "dataset", *arguments).returncode == 2
    assert error in (read_failure(layout) or "")
    assert list(layout.root.rglob("*.npy")) == []


def test_download_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boston.npz").write_bytes(b"not Keras's")
    monkeypatch.setattr(datasets, "BOSTON_URL", (tmp_path / "boston.npz").as_uri())
    with pytest.raises(Exception, match="has checksum"):
        datasets.make_arrays("boston", None)


def test_scaler_file_is_plain_json(layout: Layout) -> None:
    preprocess(layout, arrays=make_arrays(100))
    assert sorted(json.loads((layout.processing("train") / "scaler.json").read_text())) == ["count", "mean", "scale"]
