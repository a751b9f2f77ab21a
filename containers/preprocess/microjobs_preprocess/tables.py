"""Tables with named columns, in CSV and Parquet files. They are read in blocks, so memory does not grow with the files.

Needs pyarrow.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from microjobs import inventory
from microjobs.arrays import check_shards
from microjobs.columns import MISSING_TEXTS
from microjobs.errors import UserError

from .column_settings import DROP, TARGET, TableSettings

FILE_NAME_PATTERN = re.compile(
    r"(?P<split>train|test)(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?\.(?P<format>csv|parquet)"
)
EXPECTED_NAMES = "train.csv, test.csv, train.parquet, test.parquet, or shards such as train-00000-of-00004.csv"

BLOCK_BYTES = 1 << 20
"""Bytes of CSV in one block, and size of the buffer through which Parquet is read."""
MAX_BLOCK_VALUES = 1 << 19
"""Maximum number of values in a block. As doubles, they take 4 MB."""

CSV_TYPE = "csv"
"""Type of all columns of CSV files. Their fields are read as the declared type."""

CSV_ERROR_PATTERN = re.compile(
    r"(?:In CSV column #(?P<column>\d+): )?(?:CSV parse error: )?Row #(?P<row>\d+): (?P<problem>.*)", re.DOTALL
)
"""Matches pyarrow's message for an invalid field or row. It counts rows from 1, and the header is the first row."""

Block = Mapping[str, pa.Array]
"""Columns by name; all have the same number of rows."""


@dataclass(frozen=True)
class Table:
    """An input file: its name, its size in bytes, and pairs of the name and the type of each column."""

    name: str
    size: int
    columns: tuple[tuple[str, str], ...]

    @property
    def stem(self) -> str:
        """The name without the format, from which the names of the output files are made."""
        return self.name.partition(".")[0]

    @property
    def split(self) -> str:
        return self.name[:5] if self.name.startswith("train") else self.name[:4]


def list_tables(folder: Path, settings_file: Path) -> list[Table]:
    """Return the tables in a folder.

    Files that other programs leave in folders, such as `.DS_Store` and `_SUCCESS`, are skipped with a warning.

    Raises:
        UserError: a file has an unexpected name, its header cannot be read, or two of its columns have the same name.
    """
    tables = []
    for path in inventory.find_data(folder):
        if path == settings_file:
            continue
        if FILE_NAME_PATTERN.fullmatch(path.name) is None or not path.is_file():
            raise UserError(f"unexpected {path.name!r} in the input: with --columns it may contain {EXPECTED_NAMES}")
        columns = tuple(_read_header(path))
        names = [name for name, _ in columns]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{path.name} has {names.count(name)} columns {name!r}: rename all but one")
        tables.append(Table(path.name, path.stat().st_size, columns))
    return tables


def _read_header(path: Path) -> list[tuple[str, str]]:
    if path.suffix == ".csv":
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                return [(name, CSV_TYPE) for name in next(csv.reader(file), [])]
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path.name} is not CSV in UTF-8: {error}") from error
    try:
        with pa.parquet.ParquetFile(path) as file:
            return [(field.name, str(field.type)) for field in file.schema_arrow]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path.name} is not a Parquet file: {error}") from error


def check_tables(tables: Sequence[Table], settings: TableSettings, source: str) -> None:
    """Check that the tables match the settings and each other.

    Args:
        source: name of the file with the settings, for errors.

    Raises:
        UserError: two names differ only in the format; a shard is missing; or a column is missing, is not declared, or
            has the wrong type.
    """
    names_by_stem: dict[str, str] = {}
    for table in tables:
        other_name = names_by_stem.setdefault(table.stem, table.name)
        if other_name != table.name:
            raise UserError(f"{other_name} and {table.name} would have the same output: remove or rename one of them")
    for split in ("train", "test"):
        check_shards((table.name for table in tables if table.split == split), FILE_NAME_PATTERN)
    for table in tables:
        _check_names(table, settings, source)
        for name, file_type in table.columns:
            _check_type(table.name, name, file_type, settings.types.get(name, DROP))


def _check_names(table: Table, settings: TableSettings, source: str) -> None:
    names = {name for name, _ in table.columns}
    required = [name for name in settings.types if table.split == "train" or name != settings.target]
    for name in required:
        if name not in names:
            raise UserError(f"{table.name} has no column {name!r}, which {source} declares: it has {', '.join(names)}")
    for name in sorted(names - set(settings.names)):
        raise UserError(f'{table.name} has a column {name!r}: declare it in {source}, such as {{"{name}": "{DROP}"}}')


def _check_type(table: str, name: str, file_type: str, declared_type: str) -> None:
    if declared_type == DROP or file_type == CSV_TYPE:
        return
    number_types = r"null|u?int\d+|halffloat|float|double|bool|decimal\d*\(.*"
    text_types = r"null|u?int\d+|bool|(large_)?string|dictionary<values=(large_)?string,.*"
    is_categorical = declared_type not in ("numeric", TARGET)
    if not re.fullmatch(text_types if is_categorical else number_types, file_type):
        expected = "texts, integers or booleans" if is_categorical else "numbers"
        raise UserError(
            f"{table}: column {name!r} has type {file_type}, but a column of type {declared_type} contains {expected}"
        )


def compute_rows_per_block(width: int) -> int:
    """Return the maximum number of rows of a block with this number of values per row."""
    return max(1, MAX_BLOCK_VALUES // width)


def read_blocks(path: Path, types: Mapping[str, str], max_rows: int = 0) -> Iterator[tuple[int, Block]]:
    """Yield the blocks of a table in order, each as a pair: index of its first row, columns.

    Args:
        types: types of the columns to read, as in `TableSettings.types`. Numeric columns and targets are read as
            doubles, all others as texts. Missing values are null.
        max_rows: maximum number of rows of a block; 0 for the maximum that the number of columns allows.

    Raises:
        UserError: the file or a value in it cannot be read; for a value in CSV, the message names row and column.
    """
    schema = {name: pa.float64() if type_ in ("numeric", TARGET) else pa.string() for name, type_ in types.items()}
    block_rows = max_rows or compute_rows_per_block(len(schema))
    start = 0
    for batch in _read_csv(path, schema) if path.suffix == ".csv" else _read_parquet(path, schema, block_rows):
        for first in range(0, batch.num_rows, block_rows):
            part = batch.slice(first, block_rows)
            yield start, {name: _cast(part.column(name), type_) for name, type_ in schema.items()}
            start += part.num_rows


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    return column if column.type == type_ else pc.cast(column, type_, safe=False)


def _read_csv(path: Path, schema: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    try:
        with pa.csv.open_csv(
            path,
            pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),  # with threads, errors do not state the row
            pa.csv.ParseOptions(newlines_in_values=True),
            pa.csv.ConvertOptions(
                include_columns=list(schema),
                column_types=schema,
                null_values=sorted(MISSING_TEXTS),
                strings_can_be_null=True,
            ),
        ) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        raise UserError(_describe_csv_error(path, str(error))) from error


def _describe_csv_error(path: Path, message: str) -> str:
    if (match := CSV_ERROR_PATTERN.match(message)) is None:
        return f"{path.name} is not CSV: {message[:300]}"
    column = "" if match["column"] is None else f" column {_read_header(path)[int(match['column'])][0]!r}"
    return f"{path.name} row {int(match['row']) - 2}{column}: {match['problem'][:300]}"


def _read_parquet(path: Path, schema: Mapping[str, pa.DataType], block_rows: int) -> Iterator[pa.RecordBatch]:
    try:
        with pa.parquet.ParquetFile(path, buffer_size=BLOCK_BYTES, pre_buffer=False) as file:
            yield from file.iter_batches(block_rows, columns=list(schema))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path.name} cannot be read as Parquet: {error}") from error


def to_numbers(column: pa.Array) -> NDArray[np.float64]:
    """Return a column of doubles as an array; missing values are NaN."""
    numbers: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return numbers.astype(np.float64, copy=False)  # the array of a column with only nulls contains objects
