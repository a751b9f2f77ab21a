"""Arrays in .npy files: checked before use, read and written in blocks so that memory does not grow with them.

Needs numpy; the images that touch data have it.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from microjobs.errors import UserError
from microjobs.files import whole

Floats = NDArray[np.float64]

BLOCK_ROWS = 16_384
"""Rows read at a time: 1.6 MB of 13 doubles, which stays in the processor's cache between two passes."""

NAME = re.compile(r"(?P<kind>[xy])_(?P<split>train|test)(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?\.npy")
"""`x_train.npy`, or shards of it: `x_train-00000-of-00004.npy`."""


@dataclass(frozen=True)
class ArrayFile:
    """One array on disk, its header read and its size checked, its numbers not read yet."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def width(self) -> int:
        """Values a row: 1 for a one-dimensional array."""
        return math.prod(self.shape[1:])

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[NDArray[Any]]:
        """The array in order, `rows` at a time, each of shape (≤ rows, width) in the file's own dtype."""
        with self.path.open("rb") as file:
            for start in range(0, self.rows, rows):
                yield self._read(file, start, min(rows, self.rows - start))

    def _read(self, file: IO[bytes], start: int, count: int) -> NDArray[Any]:
        if not self.fortran:
            file.seek(self.offset + start * self.width * self.dtype.itemsize)
            return np.fromfile(file, self.dtype, count * self.width).reshape(count, self.width)
        block = np.empty((count, self.width), self.dtype)
        for column in range(self.width):  # column-major: each column's part of the block lies elsewhere
            file.seek(self.offset + (column * self.rows + start) * self.dtype.itemsize)
            block[:, column] = np.fromfile(file, self.dtype, count)
        return block


def open_array(path: Path) -> ArrayFile:
    """Read an array's header and check that its data is all there.

    Raises:
        UserError: not a .npy file, pickled, not numbers, neither 1-D nor 2-D, or truncated.
    """
    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
            offset = file.tell()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (
        ValueError,
        SyntaxError,
        TokenError,
        RecursionError,
        MemoryError,
    ) as error:  # all that numpy's parser raises
        raise UserError(f"{path.name} is not a .npy array: {str(error)[:200]}") from error
    if dtype.hasobject:
        raise UserError(f"{path.name} is a pickled array: save it with a numeric dtype (allow_pickle=False)")
    if dtype.kind not in "biuf":
        raise UserError(f"{path.name} holds {dtype}: it must hold real numbers")
    if len(shape) not in (1, 2):
        raise UserError(f"{path.name} has shape {shape}: it must be (rows,) or (rows, features)")
    missing = offset + math.prod(shape) * dtype.itemsize - path.stat().st_size
    if missing > 0:
        width = max(1, math.prod(shape[1:]))
        last = max(0, path.stat().st_size - offset) // (dtype.itemsize * width)
        raise UserError(f"{path.name} is truncated at row {last} of {shape[0]}: {missing} bytes are missing")
    return ArrayFile(path, shape, dtype, fortran, offset)


def first_bad_row(block: NDArray[Any], *, allow_nan: bool = False) -> int | None:
    """The first row of a block with NaN (unless allowed) or infinity, or None."""
    if block.dtype.kind != "f":
        return None
    bad = np.isinf(block) if allow_nan else ~np.isfinite(block)
    rows = np.flatnonzero(bad.any(axis=1))
    return int(rows[0]) if rows.size else None


def load_array(path: Path) -> NDArray[Any]:
    """A whole array in memory, shape (rows, width), checked to be finite.

    Raises:
        UserError: as `open_array`, or a row holds NaN or infinity.
    """
    array = open_array(path)
    start, blocks = 0, []
    for block in array.blocks():
        row = first_bad_row(block)
        if row is not None:
            raise UserError(f"{path.name} row {start + row} holds NaN or infinity: fill or drop it")
        blocks.append(block)
        start += len(block)
    return np.concatenate(blocks) if blocks else np.empty((0, array.width), array.dtype)


def array_files(folder: Path, kind: str, split: str) -> list[Path]:
    """`x_train.npy` or its shards in order; empty if there are none.

    Raises:
        UserError: a shard is missing, or there are both a whole array and shards.
    """
    found = [(match, path) for path in sorted(folder.glob("*.npy")) if (match := NAME.fullmatch(path.name))]
    mine = [(match, path) for match, path in found if match["kind"] == kind and match["split"] == split]
    check_shards(path.name for _, path in mine)
    return [path for _, path in mine]


def check_shards(names: Iterator[str]) -> None:
    """Refuse an incomplete or ambiguous set of the files of one array.

    Raises:
        UserError: names the shard that is missing, or the two files that both claim to be the array.
    """
    ordered = sorted(names)
    matches = [match for name in ordered if (match := NAME.fullmatch(name))]
    if len({match["shards"] for match in matches}) > 1:
        raise UserError(f"{ordered[0]} and {ordered[-1]} do not belong together: keep the whole array or one set")
    shards = matches[0]["shards"] if matches else None
    if shards is None:
        return
    there = {int(match["shard"]) for match in matches}
    for number in range(int(shards)):
        if number not in there:
            stem = f"{matches[0]['kind']}_{matches[0]['split']}"
            raise UserError(f"{stem}-{number:05}-of-{shards}.npy is missing: {len(there)} of {int(shards)} are there")


def load_split(folder: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All shards of x and y of one split, as float32: x of shape (rows, features), y of shape (rows, 1).

    Raises:
        UserError: files are missing, disagree in width or rows, or hold bad values.
    """
    x_files, y_files = array_files(folder, "x", split), array_files(folder, "y", split)
    for kind, files in (("x", x_files), ("y", y_files)):
        if not files:
            raise UserError(f"{folder} has no {kind}_{split}.npy: it holds {_listing(folder)}")
    x, y = _join(x_files), _join(y_files)
    if len(x) != len(y):
        raise UserError(f"x_{split} has {len(x)} rows but y_{split} has {len(y)}")
    if y.shape[1] != 1:
        raise UserError(f"y_{split} has {y.shape[1]} values a row: one target is expected")
    if not len(x):
        raise UserError(f"x_{split} has no rows")
    return _to_single(x, f"x_{split}"), _to_single(y, f"y_{split}")


def _to_single(array: NDArray[Any], name: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    row = first_bad_row(single)
    if row is not None:
        raise UserError(f"{name} row {row} holds a value too large for single precision: rescale the data")
    return single


def _join(files: list[Path]) -> NDArray[Any]:
    arrays = [load_array(path) for path in files]
    for path, array in zip(files, arrays, strict=True):
        if array.shape[1] != arrays[0].shape[1]:
            raise UserError(f"{path.name} has {array.shape[1]} values a row, {files[0].name} has {arrays[0].shape[1]}")
    return np.concatenate(arrays)


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") if names else "nothing"


@dataclass
class ArrayWriter:
    """Blocks appended to a .npy file."""

    file: IO[bytes]
    dtype: np.dtype[Any]

    def append(self, block: NDArray[Any]) -> None:
        np.ascontiguousarray(block, self.dtype).tofile(self.file)


@contextlib.contextmanager
def write_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[ArrayWriter]:
    """Write an array of a known shape in blocks; the file appears when the block ends without an error.

    Raises:
        ValueError: fewer or more values were appended than `shape` says.
    """
    with whole(path) as partial:
        with partial.open("wb") as file:
            header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, header)
            offset = file.tell()
            yield ArrayWriter(file, dtype)
            written = file.tell() - offset
            os.fsync(file.fileno())
        if written != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path.name}: {written} bytes written for shape {shape}")


def save_array(path: Path, array: NDArray[Any]) -> None:
    with write_array(path, array.shape, array.dtype) as writer:
        writer.append(array)
