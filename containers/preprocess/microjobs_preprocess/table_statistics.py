"""Statistics of a table in one pass: moments of numeric columns, and counts of categories. They can be merged."""

from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from microjobs.arrays import Floats
from microjobs.column_features import BadCellError, check_numbers
from microjobs.errors import UserError

from .column_settings import ColumnSettings, TableSettings
from .moments import Moments, measure_block
from .pipelining import map_ahead
from .tables import Block, read_blocks, to_numbers

MAX_CATEGORIES = 10_000
MAX_NUMBER = 1e150
"""Maximum absolute value of a number. The sum of squares of larger numbers could exceed the range of doubles."""

Counts = dict[str, dict[str, int]]
"""Number of rows by column and category."""


@dataclass(frozen=True)
class TableStatistics:
    """Number of rows, and the statistics of the values that are not missing.

    moments: moments of the numeric columns, in the order of the settings.
    counts: counts of the categorical columns.
    missing_counts: number of missing texts, by categorical column.
    """

    rows: int
    moments: Moments
    counts: Counts
    missing_counts: dict[str, int]

    @classmethod
    def empty(cls, settings: TableSettings) -> "TableStatistics":
        names = [column.name for column in settings.categorical_columns]
        return cls(
            rows=0,
            moments=Moments.empty(len(settings.numeric_columns)),
            counts={name: {} for name in names},
            missing_counts=dict.fromkeys(names, 0),
        )

    def merge(self, other: "TableStatistics") -> "TableStatistics":
        """Return the statistics of the rows of `self` and `other` together.

        Raises:
            UserError: a column has too many categories.
        """
        return TableStatistics(
            self.rows + other.rows,
            self.moments.merge(other.moments),
            {name: _add_counts(name, counts, other.counts[name]) for name, counts in self.counts.items()},
            {name: count + other.missing_counts[name] for name, count in self.missing_counts.items()},
        )


def _add_counts(column: str, counts: dict[str, int], other_counts: dict[str, int]) -> dict[str, int]:
    total = counts | {text: counts.get(text, 0) + count for text, count in other_counts.items()}
    if len(total) > MAX_CATEGORIES:
        raise UserError(
            f"column {column!r} has more than {MAX_CATEGORIES} categories, such as {max(total)[:50]!r}: drop the "
            "column, or group its values"
        )
    return total


def measure_table(path: Path, settings: TableSettings, types: dict[str, str]) -> TableStatistics:
    """Read a table once and check each value.

    Args:
        types: types of the columns to read: of the feature columns, and of the target if the table has it.

    Raises:
        UserError: a value is infinite, too large to square, or missing where this is invalid; or a column has too many
            categories. The message names the column and, for an invalid value, the file and the row.
    """

    def measure(item: tuple[int, Block]) -> TableStatistics:
        start, block = item
        try:
            return _measure_block(block, settings)
        except BadCellError as error:
            raise make_cell_error(path, start, error) from error

    return reduce(TableStatistics.merge, map_ahead(measure, read_blocks(path, types)), TableStatistics.empty(settings))


def make_cell_error(path: Path, start: int, error: BadCellError) -> UserError:
    """Return the error for a value of a block that begins at row `start` of a file."""
    remedy = "fill it, drop the row, or set `missing` for the column" if error.problem == "is missing" else "correct it"
    return UserError(f"{path.name} row {start + error.row}: column {error.column!r} {error.problem}: {remedy}")


def _measure_block(block: Block, settings: TableSettings) -> TableStatistics:
    for column in settings.categorical_columns:
        _check_texts(column, block)
    if settings.target is not None and settings.target in block:
        check_numbers(settings.target, to_numbers(block[settings.target]))
    numbers = _stack_numbers(block, settings)
    moments = measure_block(numbers, allow_missing=True) if settings.numeric_columns else Moments.empty(0)
    return TableStatistics(len(next(iter(block.values()))), moments, *_count_categories(block, settings))


def _check_texts(column: ColumnSettings, block: Block) -> None:
    texts = block[column.name]
    if column.missing is None and texts.null_count:
        raise BadCellError(texts.is_null().index(True).as_py(), column.name, "is missing")


def _stack_numbers(block: Block, settings: TableSettings) -> Floats:
    columns = [to_numbers(block[column.name]) for column in settings.numeric_columns]
    for column, values in zip(settings.numeric_columns, columns, strict=True):
        check_numbers(column.name, values, allow_missing=column.missing is not None)
        if (is_large := np.abs(values) > MAX_NUMBER).any():
            row = int(np.argmax(is_large))
            raise BadCellError(row, column.name, f"contains {values[row]}, which is too large to square")
    return np.stack(columns, axis=1) if columns else np.empty((0, 0))


def _count_categories(block: Block, settings: TableSettings) -> tuple[Counts, dict[str, int]]:
    counts: Counts = {}
    for column in settings.categorical_columns:
        pairs = pc.value_counts(block[column.name].drop_null())
        counts[column.name] = dict(
            zip(pairs.field("values").to_pylist(), pairs.field("counts").to_pylist(), strict=True)
        )
    return counts, {column.name: block[column.name].null_count for column in settings.categorical_columns}
