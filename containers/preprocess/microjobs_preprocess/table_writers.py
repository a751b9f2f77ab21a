"""Writes features and targets of one table in blocks: as arrays for the trainers, as Parquet, or as CSV."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from microjobs.arrays import Floats, write_array
from microjobs.files import atomic_write

NPY, PARQUET, CSV = "npy", "parquet", "csv"
FORMATS = (NPY, PARQUET, CSV)

Write = Callable[[Floats, Floats | None], None]
"""Function that appends features of shape (rows, features), and targets of shape (rows,) or None."""


def list_output_paths(folder: Path, stem: str, output_format: str, *, has_target: bool) -> list[Path]:
    """Return the files for a table such as `train-00000-of-00004`. Arrays are one file for x and one for y."""
    if output_format != NPY:
        return [folder / f"{stem}.{output_format}"]
    return [folder / f"{kind}_{stem}.npy" for kind in ("xy" if has_target else "x")]


@contextlib.contextmanager
def write_arrays(paths: list[Path], rows: int, features: int) -> Iterator[Write]:
    """Write x, and y if there is a second path, in double precision. The files appear when the `with` block succeeds.

    Raises:
        ValueError: the number of rows that were written is not `rows`.
    """
    with contextlib.ExitStack() as stack:
        double, start = np.dtype(np.float64), 0
        x = stack.enter_context(write_array(paths[0], (rows, features), double))
        y = stack.enter_context(write_array(paths[1], (rows,), double)) if len(paths) > 1 else None

        def write(block: Floats, target: Floats | None) -> None:
            nonlocal start
            x.write(start, block)
            if y is not None and target is not None:
                y.write(start, target)
            start += len(block)

        yield write


@contextlib.contextmanager
def write_table(path: Path, names: list[str]) -> Iterator[Write]:
    """Write Parquet or CSV with one column of doubles per name; the target, if there is one, is the last column."""
    schema = pa.schema([pa.field(name, pa.float64(), nullable=False) for name in names])
    with atomic_write(path) as partial, _open_writer(path.suffix, partial, schema) as writer:

        def write(block: Floats, target: Floats | None) -> None:
            columns = [*block.T, *([] if target is None else [target])]
            writer.write_batch(pa.record_batch([pa.array(column) for column in columns], schema=schema))

        yield write


def _open_writer(suffix: str, path: Path, schema: pa.Schema) -> AbstractContextManager[Any]:
    writer_class = pa.parquet.ParquetWriter if suffix == ".parquet" else pa.csv.CSVWriter
    writer: AbstractContextManager[Any] = writer_class(path, schema)
    return writer
