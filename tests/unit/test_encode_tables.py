"""Tests of preprocess with tables: it makes the features of scikit-learn's ColumnTransformer, on one or two hosts."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from numpy.typing import NDArray

from microjobs.columns import FittedColumns, read_columns, sort_categories
from microjobs.contract import Layout, ResourceConfig, read_failure, write_processing_resource_config
from microjobs.hosting.formats import named_rows
from microjobs_orchestrator.local.runtimes.process.addresses import reserve
from tests.conftest import REPOSITORY
from tests.forks import make_job_environment, start_job

Table = Mapping[str, Sequence[Any]]

SETTINGS: Mapping[str, Any] = {
    "age": {"type": "numeric", "missing": "median"},
    "income": {"type": "numeric", "missing": "mean"},
    "city": {"type": "one-hot", "missing": "most-frequent", "unknown": "ignore"},
    "rooms": {"type": "numeric", "missing": {"constant": 3}, "scale": False},
    "id": "drop",
    "grade": {"type": "ordinal", "missing": {"constant": "none"}, "unknown": -1},
    "floor": "one-hot",
    "price": "target",
}
CITIES = ["Köln", "Bonn", 'Say "hi"', "a,b", "line\nbreak"]
TRAIN_ROWS, TEST_ROWS = 25_001, 203


def make_table(rows: int, seed: int = 0) -> dict[str, list[Any]]:
    """Return columns with missing values in most of them."""
    random = np.random.default_rng(seed)

    def add_gaps(values: Sequence[Any], share: float) -> list[Any]:
        return [None if gap else value for value, gap in zip(values, random.random(rows) < share, strict=True)]

    return {
        "age": add_gaps(random.normal(40, 12, rows).tolist(), 0.1),
        "income": add_gaps((random.normal(0, 1, rows) * 1e5 + 1e7).tolist(), 0.02),
        "city": add_gaps([CITIES[index] for index in random.integers(0, len(CITIES), rows)], 0.05),
        "rooms": add_gaps(random.integers(1, 9, rows).tolist(), 0.3),
        "id": [f"row {index}" for index in range(rows)],
        "grade": add_gaps([f"g{index}" for index in random.integers(0, 7, rows)], 0.1),
        "floor": random.integers(-2, 12, rows).tolist(),
        "price": random.normal(size=rows).tolist(),
    }


@pytest.fixture(scope="session")
def train() -> dict[str, list[Any]]:
    return make_table(TRAIN_ROWS)


@pytest.fixture(scope="session")
def test() -> dict[str, list[Any]]:
    table = make_table(TEST_ROWS, seed=1)
    table["city"][0], table["grade"][0] = "Rome", "g99"  # the training rows do not have these categories
    return table


def compute_expected_features(train: Table, test: Table) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Return scikit-learn's features of both tables, and their names."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    imputer_options = {"missing_values": None, "strategy": "constant", "fill_value": "none"}
    steps = {
        "age": make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
        "income": make_pipeline(SimpleImputer(strategy="mean"), StandardScaler()),
        "city": make_pipeline(
            SimpleImputer(missing_values=None, strategy="most_frequent"),
            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        ),
        "rooms": SimpleImputer(strategy="constant", fill_value=3),
        "grade": make_pipeline(
            SimpleImputer(**imputer_options), OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        ),
        "floor": OneHotEncoder(sparse_output=False),
    }
    transformer = ColumnTransformer([(name, step, [list(train).index(name)]) for name, step in steps.items()])
    fitted = transformer.fit(make_object_array(train))
    return (
        fitted.transform(make_object_array(train)).astype(np.float64),
        fitted.transform(make_object_array(test)).astype(np.float64),
        fitted.get_feature_names_out(list(train)).tolist(),
    )


def make_object_array(table: Table) -> NDArray[np.object_]:
    array = np.empty((len(table["age"]), len(table)), object)
    for index, (name, values) in enumerate(table.items()):
        is_number = name in ("age", "income", "rooms")
        array[:, index] = [np.nan if value is None and is_number else value for value in values]
    return array


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "ml")
    write_settings(layout, SETTINGS)
    return layout


def write_settings(layout: Layout, settings: object) -> None:
    folder = layout.processing("input")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "columns.json").write_text(json.dumps(settings))


def write_table(layout: Layout, name: str, table: Table) -> None:
    path = layout.processing("input") / name
    if path.suffix == ".csv":
        pa.csv.write_csv(pa.table(dict(table)), path)
    else:
        pa.parquet.write_table(pa.table(dict(table)), path, row_group_size=10_000)


def run_job(layout: Layout, *arguments: str) -> tuple[int, str]:
    process = start_job("preprocess", layout, "--columns", "columns.json", *arguments)
    log, _ = process.communicate(timeout=300)
    return process.wait(), log


def encode(layout: Layout, *arguments: str) -> FittedColumns:
    """Run the job, check that it succeeds, and return the fitted columns."""
    code, log = run_job(layout, *arguments)
    assert code == 0, log
    return read_fitted_columns(layout)


def read_fitted_columns(layout: Layout) -> FittedColumns:
    fitted = read_columns(layout.processing("train"))
    assert fitted is not None
    return fitted


def load_array(layout: Layout, name: str) -> NDArray[np.float64]:
    array: NDArray[np.float64] = np.load(layout.processing("train" if "train" in name else "test") / name)
    return array


def slice_table(table: Table, rows: slice) -> dict[str, Sequence[Any]]:
    return {name: values[rows] for name, values in table.items()}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_features_equal_scikit_learn(suffix: str, train: Table, test: Table, layout: Layout) -> None:
    write_table(layout, f"train.{suffix}", train)
    write_table(layout, f"test.{suffix}", test)
    fitted = encode(layout)
    x_train, x_test, names = compute_expected_features(train, test)
    np.testing.assert_allclose(load_array(layout, "x_train.npy"), x_train, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(load_array(layout, "x_test.npy"), x_test, rtol=1e-12, atol=1e-12)
    assert [name.partition("__")[2] for name in names] == list(fitted.feature_names)
    np.testing.assert_array_equal(load_array(layout, "y_train.npy"), train["price"])
    np.testing.assert_array_equal(load_array(layout, "y_test.npy"), test["price"])
    assert fitted.ignored == ("id", "price")


@pytest.mark.parametrize("output_format", ["csv", "parquet"])
def test_results_can_be_tables_with_named_columns(
    output_format: str, train: Table, test: Table, layout: Layout
) -> None:
    write_table(layout, "train.parquet", slice_table(train, slice(1000)))
    write_table(layout, "test.csv", slice_table(test, slice(10)))
    encode(layout, "--format", output_format)
    read_file = pa.csv.read_csv if output_format == "csv" else pa.parquet.read_table
    result = read_file(layout.processing("train") / f"train.{output_format}")
    fitted = encode(layout)
    assert result.column_names == [*fitted.feature_names, "price"]
    features = np.stack([column.to_numpy() for column in result.columns[:-1]], axis=1)
    np.testing.assert_array_equal(features, load_array(layout, "x_train.npy"))
    np.testing.assert_array_equal(result["price"].to_numpy(), load_array(layout, "y_train.npy"))
    assert (layout.processing("test") / f"test.{output_format}").exists()


def test_two_hosts_produce_the_same_result_as_one_host(
    train: Table, test: Table, layout: Layout, tmp_path: Path
) -> None:
    """Each host has one shard, and only the first host has columns.json, as ShardedByS3Key divides the files."""
    parts = {
        "train-00000-of-00002.csv": slice_table(train, slice(15_000)),
        "train-00001-of-00002.csv": slice_table(train, slice(15_000, None)),
        "test.csv": test,
    }
    for name, part in parts.items():
        write_table(layout, name, part)
    expected = encode(layout)
    names = ("algo-1", "algo-2")
    layouts = {name: Layout(tmp_path / name) for name in names}
    for name, host_layout in layouts.items():
        host_layout.processing("input").mkdir(parents=True)
        write_processing_resource_config(host_layout, ResourceConfig(name, names))
    write_settings(layouts["algo-1"], SETTINGS)
    write_table(layouts["algo-2"], "train-00000-of-00002.csv", parts["train-00000-of-00002.csv"])
    write_table(layouts["algo-1"], "train-00001-of-00002.csv", parts["train-00001-of-00002.csv"])
    write_table(layouts["algo-1"], "test.csv", test)
    encode_on_all_hosts(layouts)
    assert read_columns(layouts["algo-1"].processing("train")) == expected
    for path in sorted(layout.root.rglob("*.npy")):
        (copy,) = [
            file
            for host_layout in layouts.values()
            if (file := host_layout.root / path.relative_to(layout.root)).exists()
        ]
        assert copy.read_bytes() == path.read_bytes()


def encode_on_all_hosts(layouts: Mapping[str, Layout]) -> None:
    with reserve(list(layouts)) as (network, _):
        variables = {
            name: dataclasses.replace(network, address=network.resolve(name)).make_variables() for name in layouts
        }
        arguments = ("--columns", "columns.json")
        processes = [start_job("preprocess", layout, *arguments, **variables[name]) for name, layout in layouts.items()]
        logs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(logs)
    assert "Killed" not in "".join(logs)


SMALL_COLUMNS: Mapping[str, Any] = {"age": "numeric", "city": "one-hot", "price": "target"}
HEADER = "age,city,price\n"
VALID_TABLE = HEADER + "1,Bonn,1\n2,Rome,2\n"
LONG_TABLE = HEADER + "1,Bonn,1\n" * 300_000


def format_parquet(table: Table) -> bytes:
    buffer = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table(table), buffer)
    return bytes(buffer.getvalue())


@pytest.mark.parametrize(
    ("settings", "files", "error"),
    [
        (
            SMALL_COLUMNS,
            {"train.csv": HEADER + "1,Bonn,1\nold,Bonn,2\n"},
            "train.csv row 1 column 'age': CSV conversion error",
        ),
        (
            SMALL_COLUMNS,
            {"train.csv": LONG_TABLE + "old,Bonn,2\n"},
            "train.csv row 300000 column 'age': CSV conversion error",
        ),
        (SMALL_COLUMNS, {"train.csv": HEADER + "1,Bonn,1\n2,Bonn\n"}, "train.csv row 1: Expected 3 columns, got 2"),
        (
            SMALL_COLUMNS,
            {"train.csv": LONG_TABLE + ",Bonn,2\n"},
            "train.csv row 300000: column 'age' is missing: fill it",
        ),
        (SMALL_COLUMNS, {"train.csv": HEADER + "1,,1\n"}, "train.csv row 0: column 'city' is missing"),
        (SMALL_COLUMNS, {"train.csv": HEADER + "1,Bonn,NA\n"}, "train.csv row 0: column 'price' is missing"),
        (
            SMALL_COLUMNS,
            {"train.csv": LONG_TABLE + "inf,Bonn,2\n"},
            "train.csv row 300000: column 'age' is infinite: correct it",
        ),
        (
            SMALL_COLUMNS,
            {"train.csv": HEADER + "1e300,Bonn,2\n"},
            "row 0: column 'age' contains 1e+300, which is too large to square",
        ),
        (
            SMALL_COLUMNS,
            {"train.csv": VALID_TABLE, "test.csv": LONG_TABLE + "1,Pariss,2\n"},
            "test.csv row 300000: column 'city' contains 'Pariss', which is not one of the categories",
        ),
        (
            SMALL_COLUMNS,
            {"train.csv": "age,city\n1,Bonn\n"},
            "train.csv has no column 'price', which columns.json declares",
        ),
        (SMALL_COLUMNS, {"train.csv": VALID_TABLE, "test.csv": "age\n1\n"}, "test.csv has no column 'city'"),
        (
            SMALL_COLUMNS,
            {"train.csv": "age,city,price,zip\n1,Bonn,2,3\n"},
            "train.csv has a column 'zip': declare it in",
        ),
        (SMALL_COLUMNS, {"train.csv": "age,city,price,age\n1,Bonn,2,3\n"}, "train.csv has 2 columns 'age'"),
        (SMALL_COLUMNS, {"train.csv": HEADER}, "no training data on any host: the input contains train.csv"),
        (SMALL_COLUMNS, {"test.csv": VALID_TABLE}, "no training data on any host: the input contains test.csv"),
        (SMALL_COLUMNS, {}, "no training data on any host: the input contains no tables"),
        (SMALL_COLUMNS, {"train.csv": b"\xff\xfe,b\n"}, "train.csv is not CSV in UTF-8"),
        (
            SMALL_COLUMNS,
            {"train.csv": LONG_TABLE.encode() + b"1,\xff,2\n"},
            "train.csv row 300000 column 'city': CSV conversion",
        ),
        (SMALL_COLUMNS, {"train.parquet": b"PAR1"}, "train.parquet is not a Parquet file"),
        (
            SMALL_COLUMNS,
            {"data.csv": VALID_TABLE},
            "unexpected 'data.csv' in the input: with --columns it may contain train.csv",
        ),
        (
            SMALL_COLUMNS,
            {"train-00000-of-00002.csv": VALID_TABLE},
            "train-00001-of-00002.csv is missing: only 1 of 2 exist",
        ),
        (SMALL_COLUMNS, {"train.csv": VALID_TABLE, "train.parquet": b""}, "train.parquet is not a Parquet file"),
        (
            SMALL_COLUMNS,
            {
                "train.csv": VALID_TABLE,
                "train.parquet": format_parquet({"age": [1.0], "city": ["Bonn"], "price": [1.0]}),
            },
            "train.csv and train.parquet would have the same output",
        ),
        ({"age": "number"}, {}, "columns.json: column 'age' is \"number\": use one of the types numeric, one-hot"),
        ({"age": {"type": "numeric", "unknown": "ignore"}}, {}, "column 'age' has the option 'unknown': type numeric"),
        ({"age": {"type": "numeric", "missing": "zero"}}, {}, 'has missing "zero": use "mean" or "median" or {"const'),
        ({"age": {"type": "one-hot", "missing": "mean"}}, {}, 'has missing "mean": use "most-frequent" or {"constant"'),
        ({"age": {"type": "numeric", "scale": 1}}, {}, "column 'age' has scale 1: use true or false"),
        ({"age": {"type": "one-hot", "unknown": -1}}, {}, 'column \'age\' has unknown -1: use "error" or "ignore"'),
        ({"age": {"type": "ordinal", "categories": []}}, {}, "column 'age' has categories []: use a list"),
        ({"age": "target", "b": "target", "c": "numeric"}, {}, "columns.json has the targets age, b: declare one"),
        ({"age": "drop"}, {}, "columns.json has no features"),
        (["age"], {}, "columns.json must be an object"),
        (None, {}, "columns.json must be an object"),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)
def test_invalid_input_is_refused_before_output_is_written(
    settings: object, files: Mapping[str, str | bytes], error: str, layout: Layout
) -> None:
    write_settings(layout, settings)
    for name, content in files.items():
        (layout.processing("input") / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, log = run_job(layout)
    assert code == 2, log
    assert error in (read_failure(layout) or "")
    assert list(layout.root.glob("processing/t*/*")) == []


@pytest.mark.parametrize(
    ("column", "settings", "error"),
    [
        (pa.array(["1"]), "numeric", "column 'a' has type string, but a column of type numeric contains numbers"),
        (pa.array([1.5]), "one-hot", "column 'a' has type double, but a column of type one-hot contains texts"),
        (pa.array([1.0]), {"type": "ordinal"}, "column 'a' has type double"),
        (pa.array([None], pa.float64()), {"type": "numeric", "missing": "median"}, "column 'a' has no value in any"),
        (pa.array([None], pa.string()), {"type": "one-hot", "missing": "most-frequent"}, "column 'a' has no value in"),
        (pa.array(["x"]), {"type": "one-hot", "categories": ["y"]}, "column 'a' contains 'x', which is not one of its"),
    ],
    ids=str,
)
def test_column_that_cannot_be_fitted_is_refused(
    column: pa.Array, settings: object, error: str, layout: Layout
) -> None:
    write_settings(layout, {"a": settings, "b": "numeric"})
    pa.parquet.write_table(pa.table({"a": column, "b": [1.0]}), layout.processing("input") / "train.parquet")
    assert run_job(layout)[0] == 2
    assert error in (read_failure(layout) or "")


def test_too_many_categories_are_refused(layout: Layout) -> None:
    write_settings(layout, {"a": "one-hot"})
    write_table(layout, "train.csv", {"a": [f"text {index}" for index in range(10_001)]})
    assert run_job(layout)[0] == 2
    assert "column 'a' has more than 10000 categories" in (read_failure(layout) or "")


def test_features_with_the_same_name_are_refused(layout: Layout) -> None:
    write_settings(layout, {"a": "one-hot", "a_x": "numeric"})
    write_table(layout, "train.csv", {"a": ["x"], "a_x": [1.0]})
    assert run_job(layout)[0] == 2
    assert "two features have the name 'a_x'" in (read_failure(layout) or "")


def test_integer_categories_are_sorted_by_value(layout: Layout) -> None:
    write_settings(layout, {"a": "ordinal", "b": "ordinal"})
    write_table(layout, "train.parquet", {"a": [10, 9, -3, 100], "b": [True, False, True, True]})
    encode(layout)
    np.testing.assert_array_equal(load_array(layout, "x_train.npy"), [[2, 1], [1, 0], [0, 1], [3, 1]])


def test_categories_that_are_no_integers_are_sorted_as_texts() -> None:
    assert sort_categories(["10", "9", "01"]) == ("01", "10", "9")
    # one of the numbers is too long for Python's int()
    assert sort_categories(["9" * 5000, "10", "9"]) == ("10", "9", "9" * 5000)


def test_declared_categories_keep_their_order(layout: Layout) -> None:
    write_settings(layout, {"a": {"type": "ordinal", "categories": ["low", "mid", "high"], "unknown": 7.5}})
    write_table(layout, "train.csv", {"a": ["high", "low", "none", "mid"]})
    encode(layout)
    np.testing.assert_array_equal(load_array(layout, "x_train.npy").ravel(), [2, 0, 7.5, 1])


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [-0.0, -5e-324, 3.0], [-1e300, 1e-300, 7.0, 1e30], [2.0] * 9])
def test_median_is_exact(values: list[float], layout: Layout) -> None:
    write_settings(layout, {"a": {"type": "numeric", "missing": "median", "scale": False}})
    values = [value / 1e200 if abs(value) > 1e100 else value for value in values]
    write_table(layout, "train.parquet", {"a": [*values, None]})
    assert encode(layout).columns[0].fill == np.median(values)


def test_less_common_types_of_parquet_are_read(layout: Layout) -> None:
    columns = {
        "a": pa.array([1, 2, None], pa.int8()),
        "b": pa.array([0.5, 1.5, 2.5], pa.float32()),
        "c": pa.array(["x", "y", "x"]).dictionary_encode(),
        "d": pa.array(["x", "y", None], pa.large_string()),
        "e": pa.array([1, 2, 3], pa.decimal128(5, 2)),
        "f": pa.array([None, None, None]),
    }
    constant = {"missing": {"constant": 1}, "scale": False}
    write_settings(
        layout,
        {
            "a": {"type": "numeric", **constant},
            "b": {"type": "numeric", "scale": False},
            "c": "ordinal",
            "d": {"type": "ordinal", "missing": "most-frequent"},
            "e": {"type": "numeric", "scale": False},
            "f": {"type": "numeric", **constant},
        },
    )
    pa.parquet.write_table(pa.table(columns), layout.processing("input") / "train.parquet")
    encode(layout)
    np.testing.assert_array_equal(
        load_array(layout, "x_train.npy"), [[1, 0.5, 0, 0, 1, 1], [2, 1.5, 1, 1, 2, 1], [1, 2.5, 0, 0, 3, 1]]
    )


def test_table_of_test_rows_may_lack_the_target(layout: Layout) -> None:
    write_settings(layout, SMALL_COLUMNS)
    write_table(layout, "train.csv", {"age": [1, 2], "city": ["Bonn", "Rome"], "price": [1, 2]})
    write_table(layout, "test.csv", {"city": ["Rome"], "age": [1]})  # the order of columns does not matter
    encode(layout)
    np.testing.assert_array_equal(load_array(layout, "x_test.npy"), [[-1, 0, 1]])
    assert not (layout.processing("test") / "y_test.npy").exists()


def read_examples(page: str) -> list[Any]:
    """Return the content of the JSON examples of a page."""
    return [json.loads(text) for text in re.findall(r"```json\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)]


def test_documented_request_fits_the_documented_settings(layout: Layout) -> None:
    settings, request = read_examples("docs/using/tables.md")
    assert read_examples("containers/preprocess/README.md") == [settings]
    write_settings(layout, settings)
    columns: Table = {
        "age": [30, None, 40],
        "income": [1, 2, 3],
        "city": ["Bonn", None, "Köln"],
        "grade": ["low", "mid", "high"],
    }
    write_table(layout, "train.csv", {**columns, "id": ["a", "b", "c"], "price": [1, 2, 3]})
    fitted = encode(layout)
    assert named_rows.to_features(request["instances"], named_rows.ColumnsEncoder(fitted)).shape == (1, 5)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(["--allow-missing"], "--allow-missing is for arrays"), (["--format", "xls"], "invalid choice: 'xls'")],
)
def test_arguments_that_do_not_apply_are_refused(arguments: list[str], error: str, layout: Layout) -> None:
    assert run_job(layout, *arguments)[0] == 2
    assert error in (read_failure(layout) or "")


def test_missing_settings_are_refused(layout: Layout) -> None:
    (layout.processing("input") / "columns.json").unlink()
    write_table(layout, "train.csv", {"age": [1]})
    assert run_job(layout)[0] == 2
    assert "--columns columns.json is on no host: add it to the input" in (read_failure(layout) or "")


def test_failed_job_removes_its_output(layout: Layout) -> None:
    write_settings(layout, SMALL_COLUMNS)
    write_table(layout, "train.csv", {"age": [1, 2], "city": ["Bonn", "Rome"], "price": [1, 2]})
    (layout.processing("train") / "y_train.npy").mkdir(parents=True)  # a file cannot replace this folder
    assert run_job(layout)[0] != 0
    assert [path.name for path in layout.root.glob("processing/t*/*")] == ["y_train.npy"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_input(suffix: str, layout: Layout) -> None:
    """The job runs with a memory limit that is smaller than the features, which have 800 MB."""
    write_settings(layout, {"a": {"type": "numeric", "missing": "median"}, "b": "one-hot"})
    rows = 500_000
    texts = [f"c{row % 200}" for row in range(rows)]
    write_table(layout, f"train.{suffix}", {"a": [row / 7 for row in range(rows)], "b": texts})
    command = ["prlimit", f"--data={500_000_000}", sys.executable, "-m", "microjobs", "--columns", "columns.json"]
    subprocess.run(command, env=make_job_environment("preprocess", layout), check=True)
    assert len(read_fitted_columns(layout).feature_names) == 201
    assert load_array(layout, "x_train.npy").shape == (rows, 201)


@pytest.mark.parametrize("media_type", ["application/json", "application/jsonlines", "text/csv"])
def test_requests_get_the_features_of_the_job(media_type: str, train: Table, test: Table, layout: Layout) -> None:
    """A server makes the same features from the rows of a request as the job made from a table."""
    part = slice_table(test, slice(0, 100))
    write_table(layout, "train.parquet", slice_table(train, slice(2000)))
    write_table(layout, "test.csv", part)
    encoder = named_rows.ColumnsEncoder(encode(layout))
    rows = [dict(zip(part, values, strict=True)) for values in zip(*part.values(), strict=True)]
    if media_type == "application/json":
        features = named_rows.to_features(rows, encoder)
    elif media_type == "text/csv":
        features = named_rows.decode_named_rows(
            (layout.processing("input") / "test.csv").read_bytes(), media_type, encoder
        )
    else:
        features = named_rows.decode_named_rows("\n".join(map(json.dumps, rows)).encode(), media_type, encoder)
    np.testing.assert_array_equal(features, load_array(layout, "x_test.npy"))
