"""Preprocess with damaged input: the job writes all outputs, or writes none and reports an error in one sentence.

MICROJOBS_EXAMPLES sets the number of generated inputs.
"""

import os
import re
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from numpy.typing import NDArray

from microjobs.contract import Layout, ResourceConfig
from microjobs.errors import UserError
from microjobs.hosts import run_on_hosts
from microjobs_preprocess import standardise

FILE_NAMES = ("x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy")
MAX_EXAMPLES = int(os.environ.get("MICROJOBS_EXAMPLES", "100"))
WriteFile = Callable[[Path], object]

generated_examples = settings(max_examples=MAX_EXAMPLES, suppress_health_check=list(HealthCheck))

# --- damaged files ---

DTYPES = [
    "<f8",
    ">f8",
    "<f4",
    "<f2",
    "<f16",
    "<i8",
    "|b1",
    "|O",
    "<U3",
    "|S0",
    "<c16",
    "<M8[s]",
    "|V4",
    "f",
    "8",
    "<f9",
]
DTYPE_DESCRIPTIONS = [*(repr(name) for name in DTYPES), "[('a', '<f8')]", "('<f8', (3,))", "[]", "None", "('a',)", "{}"]
INTEGERS = st.sampled_from([-1, 0, 1, 3, 8, 2**31, 2**63, 2**64, 10**30, 10**400, True])


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Return a header whose values may be invalid, or bytes that are no header."""
    shape: object = draw(st.one_of(st.lists(INTEGERS, max_size=4).map(tuple), st.sampled_from(["None", "3", "{}"])))
    order = draw(st.sampled_from(["True", "False", "0", "None", "F"]))
    text = f"{{'descr': {draw(st.sampled_from(DTYPE_DESCRIPTIONS))}, 'fortran_order': {order}, 'shape': {shape}, }}"
    return draw(st.one_of(st.just(text.encode()), st.binary(max_size=60), st.just(b"(" * 9000), st.just(b"-" * 9000)))


@st.composite
def damaged_headers(draw: st.DrawFn) -> bytes:
    header, version = draw(headers()), draw(st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]))
    declared_length = draw(st.sampled_from([len(header), 0, 65_535, max(0, len(header) - 3)]))
    length = declared_length.to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + header + draw(st.binary(max_size=300))


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    """Return the start of a valid file with some bytes changed, added or removed."""
    file = BytesIO()
    np.save(file, np.ones((8, 3)))
    content = bytearray(file.getvalue())
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(content) - 1))
        content[position : position + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(content[: draw(st.integers(0, len(content)))])


def make_bytes_writer(content: bytes) -> WriteFile:
    return lambda path: path.write_bytes(content)


def make_array_writer(array: NDArray[Any]) -> WriteFile:
    return lambda path: np.save(path, array)


SPECIAL_FILES = st.sampled_from(
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("missing"),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/dev/zero"),
    ]
)


def cast(array: NDArray[np.float64], dtype: str) -> NDArray[Any]:
    with np.errstate(all="ignore"):  # numpy changes a number that does not fit, and warns
        return array.astype(dtype)


SHAPES = st.sampled_from([(8, 3), (8,), (0, 3), (8, 0), (0,), (9, 3), (8, 1), (8, 2000), (2, 2, 2)])
VALUES = st.sampled_from([0.0, 1.0, -1e-300, 5e-324, 1e150, 1e308, np.nan, np.inf, -np.inf])
ARRAYS = st.builds(
    lambda array, dtype, order: cast(array, dtype).copy(order),
    SHAPES.flatmap(lambda shape: numpy_strategies.arrays(np.float64, shape, elements=VALUES, fill=VALUES)),
    st.sampled_from(["<f8", ">f8", "<f4", ">f2", "<f16", "<i8", "|u1", "|b1", "<c16", "|O"]),
    st.sampled_from(["C", "F"]),
)
DAMAGED_FILES: st.SearchStrategy[WriteFile] = st.one_of(
    damaged_headers().map(make_bytes_writer),
    mutated_files().map(make_bytes_writer),
    ARRAYS.map(make_array_writer),
    SPECIAL_FILES,
)


def write_valid_arrays(folder: Path) -> None:
    for name in FILE_NAMES:
        np.save(folder / name, np.arange(24.0).reshape(8, 3) if name[0] == "x" else np.arange(8.0))


def run_job(layout: Layout, missing: Literal["mean"] | None) -> bool:
    """Run the job, and return whether it succeeds. Check that it has all outputs, or one error and no output."""
    source, train, test = (layout.to_contract_path(layout.processing(name)) for name in ("input", "train", "test"))
    reason = None
    try:
        options = standardise.ArrayOptions(source, train, test, missing)
        run_on_hosts(ResourceConfig(), lambda hosts: standardise.standardise(options, hosts))
    except UserError as error:
        reason = str(error)
    output_names = sorted(path.name for path in layout.root.glob("processing/t*/*"))
    if reason is not None:
        assert output_names == []
        assert re.fullmatch("[^\n]{10,600}", reason)
        return False
    assert output_names == sorted([*(path.name for path in layout.processing("input").iterdir()), "scaler.json"])
    for path in layout.root.glob("processing/t*/x_*.npy"):
        assert not np.isinf(np.load(path)).any()
    return True


@pytest.mark.filterwarnings("ignore:.*Python 2")  # numpy warns about some headers
@given(
    damage=st.dictionaries(st.sampled_from(FILE_NAMES), DAMAGED_FILES, min_size=1),
    missing=st.sampled_from([None, "mean"]),
)
@generated_examples
def test_damaged_input_gives_all_outputs_or_an_error(
    damage: dict[str, WriteFile], missing: Literal["mean"] | None
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGEMAKER_BASE_DIR", folder)
        layout = Layout(Path(folder))
        layout.processing("input").mkdir(parents=True)
        write_valid_arrays(layout.processing("input"))
        for name, write_file in damage.items():
            (layout.processing("input") / name).unlink()
            write_file(layout.processing("input") / name)
        run_job(layout, missing)


@pytest.mark.parametrize("name", ["x_train.npz", "x_train-00000-of-99999.npy", "\udcff.npy", "a\nb", "x" * 200])
def test_unexpected_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    layout = Layout(tmp_path)
    layout.processing("input").mkdir(parents=True)
    write_valid_arrays(layout.processing("input"))
    (layout.processing("input") / name).write_bytes(b"")
    assert not run_job(layout, missing=None)
