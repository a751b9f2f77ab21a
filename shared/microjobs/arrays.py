"""Arrays in .npy files. They are checked before use, and read and written in blocks that limit the memory use.

Needs numpy, which all images that process data contain.
"""

import contextlib
import math
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from microjobs.errors import UserError
from microjobs.files import atomic_write

Floats = NDArray[np.float64]

BLOCK_BYTES = 1 << 20
"""Size of a block. A block fits into a core's cache, and is so large that threads rarely wait for Python's GIL."""
BLOCKS_PER_PART = 8
"""Number of blocks in a part. One core processes one part at a time."""
MAX_THREADS = 32
"""Maximum number of threads. More threads would wait for memory bandwidth, and each thread needs memory for some
blocks."""
MIN_COLUMN_BLOCK_ROWS = 512
"""Minimum number of rows in a column-major block. Such a block needs one read per column, so smaller blocks would need
many short reads."""
MAX_FOLD_ROWS, MAX_FOLD_WIDTH = 64, 256
"""`fold_rows` joins up to MAX_FOLD_ROWS rows of a block that is narrower than MAX_FOLD_WIDTH."""
HEADER_BYTES = 12 + 10_000
"""Maximum size of a header. numpy parses at most 10,000 characters, for safety."""

FILE_NAME_PATTERN = re.compile(r"(?P<kind>[xy])_(?P<split>train|test)(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?\.npy")
"""Matches the name of an array file, such as `x_train.npy`, or of one shard, such as `x_train-00000-of-00004.npy`."""

T = TypeVar("T")


@dataclass(frozen=True)
class ArrayFile:
    """One array on disk. Its header and size have been checked, and its values are read on demand.

    is_column_major: whether the file contains the array column by column (numpy's `fortran_order`).
    offset: position of the first value in the file, in bytes.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_column_major: bool
    offset: int

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def width(self) -> int:
        """Number of values per row: 1 for a one-dimensional array."""
        return math.prod(self.shape[1:])

    @property
    def block_rows(self) -> int:
        """Number of rows per block, a power of two. It depends only on the array, so that sums of blocks are equal on
        all machines."""
        rows = BLOCK_BYTES // max(1, self.width * self.dtype.itemsize)
        return 1 << (max(rows, MIN_COLUMN_BLOCK_ROWS if self.is_column_major else 1).bit_length() - 1)

    def parts(self) -> list[range]:
        """Return ranges that divide all rows into parts. One core processes one part."""
        rows = BLOCKS_PER_PART * self.block_rows
        return [range(start, min(start + rows, self.rows)) for start in range(0, self.rows, rows)]

    def blocks(self, part: range | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the blocks of a part, or of the whole array, in order, each as a pair: index of its first row, values.

        A block has shape (≤ block_rows, width) and the dtype of the file. The caller may change it.

        Raises:
            UserError: the file was truncated after it was opened.
        """
        rows, size = part or range(self.rows), self.block_rows
        with self.path.open("rb") as file:
            for start in range(rows.start, rows.stop, size):
                yield start, self._read(file, start, min(size, rows.stop - start))

    def read(self, rows: range) -> NDArray[Any]:
        """Read these rows into an array of shape (rows, width).

        Raises:
            UserError: the file was truncated after it was opened.
        """
        with self.path.open("rb") as file:
            return self._read(file, rows.start, len(rows))

    def _read(self, file: BufferedReader, start: int, count: int) -> NDArray[Any]:
        if not self.is_column_major:
            return self._read_values(file, start * self.width, (count, self.width))
        columns = [self._read_values(file, column * self.rows + start, (count,)) for column in range(self.width)]
        return np.stack(columns, axis=1)

    def _read_values(self, file: BufferedReader, first: int, shape: tuple[int, ...]) -> NDArray[Any]:
        values = np.empty(shape, self.dtype)
        file.seek(self.offset + first * self.dtype.itemsize)
        if file.readinto(values.data) != values.nbytes:
            raise UserError(f"{self.path.name} was truncated while it was read: make sure that no program writes to it")
        return values


def open_array(path: Path) -> ArrayFile:
    """Read an array's header and check the size of the file.

    Raises:
        UserError: the file does not exist, is not a .npy file, is truncated, or does not contain a 1-D or 2-D array of
            real numbers.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():  # opening a pipe would block
        raise UserError(f"{path.name} is not a file")
    with path.open("rb") as file:
        header, size = BytesIO(file.read(HEADER_BYTES)), os.fstat(file.fileno()).st_size
    array = _parse_header(path, header)
    _check_type_and_shape(array)
    row_bytes = array.width * array.dtype.itemsize
    missing_bytes = array.offset + array.rows * row_bytes - size
    if missing_bytes > 0:
        complete_rows = max(0, size - array.offset) // row_bytes
        raise UserError(
            f"{path.name} is truncated at row {complete_rows} of {array.rows}: {missing_bytes} bytes are missing"
        )
    return array


def _parse_header(path: Path, header: BytesIO) -> ArrayFile:
    try:
        version = npy.read_magic(header)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_column_major, dtype = read_header(header)
    except Exception as error:  # numpy's parser raises errors of many types for malicious headers
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path.name} is not a .npy array: {reason[:200]}") from error
    return ArrayFile(path, shape, dtype, is_column_major, header.tell())


def _check_type_and_shape(array: ArrayFile) -> None:
    name, shape, dtype = array.path.name, array.shape, array.dtype
    if dtype.hasobject:
        raise UserError(f"{name} is a pickled array: save it with a numeric dtype (allow_pickle=False)")
    if dtype.kind not in "biuf":
        raise UserError(f"{name} has type {str(dtype)[:100]}: save real numbers")
    if len(shape) not in (1, 2) or min(shape) < 0:
        raise UserError(f"{name} has shape {str(shape)[:100]}: it must be (rows,) or (rows, features)")


def map_parts(array: ArrayFile, function: Callable[[range], T]) -> list[T]:
    """Call the function with each part of the array's rows, on all cores. Return the results in the order of the parts.

    The calls run in threads: numpy, ONNX Runtime, reads and writes release Python's GIL (global interpreter lock).
    """
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MAX_THREADS)) as pool:
        return list(pool.map(function, array.parts()))


def fold_rows(block: NDArray[Any]) -> NDArray[Any]:
    """Join every n rows of a narrow block into one row, shape (rows / n, n * width), because numpy is slow for short
    rows."""
    rows, width = block.shape
    return block.reshape(-1, width * math.gcd(rows, MAX_FOLD_ROWS)) if 0 < width < MAX_FOLD_WIDTH else block


def find_bad_row(block: NDArray[Any], *, allow_nan: bool = False) -> int | None:
    """Return the index of the first row that contains infinity, or NaN unless NaN is allowed; None if no row does."""
    if block.dtype.kind != "f":
        return None
    is_valid = ~np.isinf(block) if allow_nan else np.isfinite(block)
    return None if is_valid.all() else int(np.argmin(is_valid.all(axis=1)))


def load_array(path: Path) -> NDArray[Any]:
    """Read a whole array into memory, shape (rows, width), and check that all values are finite.

    Raises:
        UserError: `open_array` rejects the file, or a row contains NaN or infinity.
    """
    array = open_array(path)
    blocks = []
    for start, block in array.blocks():
        refuse_bad_row(path, start, block)
        blocks.append(block)
    return np.concatenate(blocks) if blocks else np.empty((0, array.width), array.dtype)


def refuse_bad_row(path: Path, start: int, block: NDArray[Any]) -> None:
    """Raise UserError if a row of the block contains NaN or infinity. The block starts at row `start` of the file."""
    row = find_bad_row(block)
    if row is not None:
        raise UserError(f"{path.name} row {start + row} contains NaN or infinity: replace the value or drop the row")


def find_array_files(folder: Path, kind: str, split: str) -> list[Path]:
    """Return the path of an array such as `x_train.npy`, or of its shards in order; empty if no file exists.

    Raises:
        UserError: a shard is missing, or the folder has both a whole array and shards.
    """
    files = _find_files(folder, kind, split)
    check_shards(path.name for path in files)
    return files


def _find_files(folder: Path, kind: str, split: str) -> list[Path]:
    matches = [
        (match, path) for path in sorted(folder.glob("*.npy")) if (match := FILE_NAME_PATTERN.fullmatch(path.name))
    ]
    return [path for match, path in matches if match["kind"] == kind and match["split"] == split]


def check_shards(names: Iterator[str], pattern: re.Pattern[str] = FILE_NAME_PATTERN) -> None:
    """Check that the files of one array or table are complete and unambiguous.

    Args:
        pattern: matches the names, with the groups `shard` and `shards`.

    Raises:
        UserError: a shard is missing, a shard's number is too large, or two files belong to different sets. The message
            names the files.
    """
    matches = [match for name in sorted(names) if (match := pattern.fullmatch(name))]
    other_name = next((match[0] for match in matches if match["shards"] != matches[0]["shards"]), None)
    if other_name is not None:
        raise UserError(
            f"{matches[0][0]} and {other_name} do not belong together: keep either the whole file or one set of shards"
        )
    shards = matches[0]["shards"] if matches else None
    if shards is None:
        return
    shard_numbers = {int(match["shard"]) for match in matches}
    if max(shard_numbers) >= int(shards):
        raise UserError(f"{matches[-1][0]} is not one of {int(shards)} shards: number the shards from 00000")
    for number in range(int(shards)):
        if number not in shard_numbers:
            start, end = matches[0].span("shard")
            missing_name = f"{matches[0][0][:start]}{number:05}{matches[0][0][end:]}"
            raise UserError(f"{missing_name} is missing: only {len(shard_numbers)} of {int(shards)} exist")


def load_split(folder: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read all shards of x and y of one split, as float32: x of shape (rows, features), y of shape (rows, 1).

    Raises:
        UserError: files are missing, their widths or row counts differ, or they contain invalid values.
    """
    return _load_pair(folder, split, find_array_files(folder, "x", split), find_array_files(folder, "y", split))


def load_host_shards(folder: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read the shards of one split that this host has, and return x and y like `load_split`.

    If this host has no shard, x has shape (0, 0) and y has shape (0, 1).

    Raises:
        UserError: x and y of a shard are on different hosts, or the files are invalid as in `load_split`.
    """
    x_files, y_files = _find_files(folder, "x", split), _find_files(folder, "y", split)
    if not x_files and not y_files:
        return np.empty((0, 0), np.float32), np.empty((0, 1), np.float32)
    x_names, y_names = ({path.name[1:] for path in files} for files in (x_files, y_files))
    if unpaired_names := sorted(x_names ^ y_names):
        found_kind, missing_kind = ("x", "y") if unpaired_names[0] in x_names else ("y", "x")
        raise UserError(
            f"{found_kind}{unpaired_names[0]} is on this host and {missing_kind}{unpaired_names[0]} is not: "
            "ShardedByS3Key distributes single files, so make the number of shards a multiple of the number of hosts"
        )
    return _load_pair(folder, split, x_files, y_files)


def _load_pair(
    folder: Path, split: str, x_files: list[Path], y_files: list[Path]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    for kind, files in (("x", x_files), ("y", y_files)):
        if not files:
            raise UserError(f"{folder} has no {kind}_{split}.npy: it contains {_describe_contents(folder)}")
    x, y = _load_and_join(x_files), _load_and_join(y_files)
    if len(x) != len(y):
        raise UserError(f"x_{split} has {len(x)} rows but y_{split} has {len(y)}: write one target per row")
    if y.shape[1] != 1:
        raise UserError(f"y_{split} has {y.shape[1]} values per row: one target is expected")
    if not len(x):
        raise UserError(f"x_{split} has no rows: add rows, or remove the file")
    return _to_float32(x, f"x_{split}"), _to_float32(y, f"y_{split}")


def _to_float32(array: NDArray[Any], name: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    row = find_bad_row(converted)
    if row is not None:
        raise UserError(f"{name} row {row} contains a value that is too large for float32: rescale the data")
    return converted


def _load_and_join(files: list[Path]) -> NDArray[Any]:
    arrays = [load_array(path) for path in files]
    for path, array in zip(files, arrays, strict=True):
        if array.shape[1] != arrays[0].shape[1]:
            raise UserError(
                f"{path.name} has rows of length {array.shape[1]}, but {files[0].name} has {arrays[0].shape[1]}: "
                "write all shards with the same features"
            )
    return np.concatenate(arrays)


def _describe_contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") if names else "nothing"


class ArrayWriter:
    """Writes the rows of a .npy file, in any order and from several threads."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        npy.write_array_header_1_0(file, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
        file.flush()
        self.written_bytes = 0
        self._file, self._dtype, self._offset = file, dtype, file.tell()
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._written_lock = threading.Lock()

    def write(self, start: int, block: NDArray[Any]) -> None:
        """Write the block. Its first row becomes row `start` of the file."""
        content = np.ascontiguousarray(block, self._dtype).reshape(-1).view(np.uint8)
        position, remaining = self._offset + start * self._row_bytes, content.data
        while remaining:  # a write to an almost full disk may store only a part
            written_bytes = os.pwrite(self._file.fileno(), remaining, position)
            position, remaining = position + written_bytes, remaining[written_bytes:]
        with self._written_lock:
            self.written_bytes += content.nbytes


@contextlib.contextmanager
def write_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[ArrayWriter]:
    """Write an array of a known shape in blocks. The file appears when the `with` block ends without an error.

    Raises:
        ValueError: the number of values that were written does not match `shape`.
    """
    with atomic_write(path) as partial:
        with partial.open("wb") as file:
            writer = ArrayWriter(file, shape, dtype)
            yield writer
        if writer.written_bytes != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path.name}: {writer.written_bytes} bytes written for shape {shape}")


def save_array(path: Path, array: NDArray[Any]) -> None:
    with write_array(path, array.shape, array.dtype) as writer:
        writer.write(start=0, block=array)
