"""Tests for array files: header checks, and reads and writes in blocks."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from microjobs import arrays
from microjobs.errors import UserError


def save(path: Path, array: NDArray[Any]) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i4", "|u1", "|b1"])
def test_blocks_contain_the_array_for_any_layout_and_dtype(
    order: Any, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.asarray(np.random.default_rng(0).integers(0, 2, (100, 3)), dtype=dtype, order=order)
    array_file = arrays.open_array(save(tmp_path / "x_train.npy", array))
    monkeypatch.setattr(arrays, "BLOCK_BYTES", array.itemsize * 3 * 8)
    monkeypatch.setattr(arrays, "MIN_COLUMN_BLOCK_ROWS", 8)
    starts, blocks = zip(*array_file.blocks(), strict=True)
    assert list(starts) == list(range(0, 100, 8))
    assert [len(block) for block in blocks] == [8] * 12 + [4]
    np.testing.assert_array_equal(np.concatenate(blocks), array)


@pytest.mark.parametrize("order", ["C", "F"])
def test_read_returns_rows_from_the_middle(order: Any, tmp_path: Path) -> None:
    array = np.asarray(np.arange(60.0).reshape(20, 3), order=order)
    array_file = arrays.open_array(save(tmp_path / "x_test.npy", array))
    np.testing.assert_array_equal(array_file.read(range(7, 12)), array[7:12])


def test_map_parts_returns_each_part_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1024)
    array_file = arrays.open_array(save(tmp_path / "y_test.npy", np.arange(100_000.0)))
    assert len(array_file.parts()) > 50
    blocks_by_part = arrays.map_parts(array_file, lambda part: [block[:, 0] for _, block in array_file.blocks(part)])
    np.testing.assert_array_equal(
        np.concatenate([block for part in blocks_by_part for block in part]), np.arange(100_000)
    )


def test_map_parts_raises_error_of_a_part(tmp_path: Path) -> None:
    def fail(part: range) -> None:
        raise UserError(f"row {part.start}")

    with pytest.raises(UserError, match="row 0"):
        arrays.map_parts(arrays.open_array(save(tmp_path / "x_test.npy", np.zeros((10, 2)))), fail)


def test_file_that_is_truncated_during_a_read_raises(tmp_path: Path) -> None:
    array_file = arrays.open_array(save(tmp_path / "x_test.npy", np.zeros((10, 2))))
    array_file.path.write_bytes(array_file.path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"x_test\.npy was truncated while it was read"):
        list(array_file.blocks())


@pytest.mark.parametrize("shape", [(8192, 13), (100, 13), (37, 5), (64, 400)])
def test_folded_block_has_same_column_sums(shape: tuple[int, int]) -> None:
    block = np.arange(float(np.prod(shape))).reshape(shape)
    folded = arrays.fold_rows(block)
    np.testing.assert_array_equal(folded.sum(axis=0).reshape(-1, shape[1]).sum(axis=0), block.sum(axis=0))
    assert np.shares_memory(folded, block)


def test_one_dimensional_array_has_width_1(tmp_path: Path) -> None:
    array_file = arrays.open_array(save(tmp_path / "y_train.npy", np.arange(5)))
    assert (array_file.rows, array_file.width) == (5, 1)


def make_npy_bytes(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + data


INVALID_ARRAYS = {
    "pickled": np.array([{"a": 1}], dtype=object),
    "text": np.array(["a"]),
    "complex": np.array([1j]),
    "three-dimensional": np.zeros((2, 2, 2)),
}
INVALID_BYTES = {
    "no array": b"1,2,3\n",
    "empty": b"",
    "nested": make_npy_bytes(b"{'descr': '<f8', 'shape': (" + b"(" * 3000),
    "long": make_npy_bytes(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }" + b" " * 100_000, bytes(8)),
    "negative": make_npy_bytes(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-2, 3), }", bytes(48)),
}


def make_invalid_file(folder: Path, defect: str) -> Path:
    path = folder / "x_train.npy"
    if defect in INVALID_ARRAYS:
        np.save(path, INVALID_ARRAYS[defect], allow_pickle=True)
    elif defect in INVALID_BYTES:
        path.write_bytes(INVALID_BYTES[defect])
    elif defect == "truncated":
        np.save(path, np.zeros((10, 2)))
        path.write_bytes(path.read_bytes()[:-40])
    elif defect == "folder":
        path.mkdir()
    elif defect == "pipe":
        os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("pickled", "pickled array"),
        ("text", "save real numbers"),
        ("complex", "save real numbers"),
        ("three-dimensional", r"shape \(2, 2, 2\)"),
        ("no array", "not a .npy array"),
        ("empty", "not a .npy array"),
        ("nested", "not a .npy array"),
        ("long", "not a .npy array"),
        ("negative", r"shape \(-2, 3\)"),
        ("folder", "not a file"),
        ("pipe", "not a file"),
        ("truncated", "truncated at row 7 of 10: 40 bytes are missing"),
        ("missing", "does not exist"),
    ],
)
def test_invalid_file_error_names_file(defect: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"x_train\.npy.*{message}"):
        arrays.open_array(make_invalid_file(tmp_path, defect))


def test_pickled_array_is_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    np.save(tmp_path / "x_train.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError):
        arrays.load_array(tmp_path / "x_train.npy")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("non_finite_value", [np.nan, np.inf, -np.inf])
def test_non_finite_value_error_names_row(non_finite_value: float, tmp_path: Path) -> None:
    array = np.zeros((40_000, 2))
    array[33_333, 1] = non_finite_value
    with pytest.raises(UserError, match=r"x_train\.npy row 33333 contains NaN or infinity"):
        arrays.load_array(save(tmp_path / "x_train.npy", array))


def test_file_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "out" / "x.npy"
    with arrays.write_array(path, (5, 2), np.dtype(np.float64)) as writer:
        writer.write(3, np.zeros((2, 2)))
        assert not path.exists()
        writer.write(0, np.ones((3, 2)))
    np.testing.assert_array_equal(np.load(path), [[1, 1]] * 3 + [[0, 0]] * 2)


def test_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def write_too_few_rows() -> None:
        with arrays.write_array(tmp_path / "x.npy", (5, 2), np.dtype(np.float64)) as writer:
            writer.write(0, np.ones((3, 2)))

    with pytest.raises(ValueError, match="48 bytes written"):
        write_too_few_rows()
    assert list(tmp_path.iterdir()) == []


def test_shards_of_a_split_are_joined_in_order(tmp_path: Path) -> None:
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10.0)
    for number, (x_part, y_part) in enumerate(zip(np.array_split(x, 3), np.array_split(y, 3), strict=True)):
        save(tmp_path / f"x_train-{number:05}-of-00003.npy", x_part)
        save(tmp_path / f"y_train-{number:05}-of-00003.npy", y_part)
    x_read, y_read = arrays.load_split(tmp_path, "train")
    np.testing.assert_array_equal(x_read, x)
    np.testing.assert_array_equal(y_read[:, 0], y)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x_train.npy"], "has no y_train.npy: it contains x_train.npy"),
        ([], "has no x_train.npy: it contains nothing"),
        (["x_train-00000-of-00002.npy", "y_train.npy"], "x_train-00001-of-00002.npy is missing"),
        (
            ["x_train-00001-of-00002.npy", "x_train-00002-of-00002.npy", "y_train.npy"],
            "x_train-00002-of-00002.npy is not one of 2 shards: number the shards from 00000",
        ),
        (["x_train.npy", "x_train-00000-of-00001.npy", "y_train.npy"], "do not belong together"),
        (
            ["x_train-00000-of-00002.npy", "x_train-00000-of-00003.npy", "x_train-00001-of-00002.npy"],
            "00000-of-00002.npy and x_train-00000-of-00003.npy do not belong together",
        ),
    ],
)
def test_invalid_set_of_files_raises(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        save(tmp_path / name, np.zeros((2, 1)))
    with pytest.raises(UserError, match=message):
        arrays.load_split(tmp_path, "train")


def test_row_count_mismatch_raises(tmp_path: Path) -> None:
    save(tmp_path / "x_test.npy", np.zeros((3, 2)))
    save(tmp_path / "y_test.npy", np.zeros(2))
    with pytest.raises(UserError, match="x_test has 3 rows but y_test has 2"):
        arrays.load_split(tmp_path, "test")


def test_float32_overflow_error_names_row(tmp_path: Path) -> None:
    save(tmp_path / "x_test.npy", np.array([[1.0], [1e39]]))
    save(tmp_path / "y_test.npy", np.zeros(2))
    with pytest.raises(UserError, match="x_test row 1 contains a value that is too large"):
        arrays.load_split(tmp_path, "test")
