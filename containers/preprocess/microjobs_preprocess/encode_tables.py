"""Converts tables with named columns to features, fitted to the training rows of all hosts.

The first host calls functions on all hosts, in this order: list the tables and read their headers, measure all rows,
search the medians of the columns that need them, check the categories, and encode all rows. Nothing is written before
all input has been checked. Hosts send only settings, headers, statistics, histograms and the fitted columns to each
other.
"""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microjobs import inventory
from microjobs.arrays import Floats
from microjobs.column_features import MISSING_CODE, UNKNOWN_CODE, BadCellError, fill_codes, make_features
from microjobs.columns import FILE_NAME, CategoricalColumn, FittedColumns, write_columns
from microjobs.contract import Layout
from microjobs.errors import UserError
from microjobs.hosts import Hosts, RegisterFile

from . import medians
from .column_settings import MEDIAN, TableSettings, parse_settings
from .fit_columns import fit_columns
from .pipelining import map_ahead
from .table_statistics import TableStatistics, make_cell_error, measure_table
from .table_writers import NPY, Write, list_output_paths, write_arrays, write_table
from .tables import Block, Table, check_tables, compute_rows_per_block, list_tables, read_blocks, to_numbers

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class TableOptions:
    """Options of the job with --columns.

    The folders are values of `LocalPath` in a request; each host resolves them below its own root.

    columns: the file with the user's settings, relative to the input folder.
    format: format of the results, "npy", "parquet" or "csv".
    """

    input: str
    train: str
    test: str
    columns: str
    format: str = NPY

    def resolve(self, folder: str) -> Path:
        return Layout.from_environment().resolve_local_path(folder)

    @property
    def settings_file(self) -> Path:
        return self.resolve(self.input) / self.resolve(self.columns)

    def source_path(self, name: str) -> Path:
        return self.resolve(self.input) / name

    def output_folder(self, table: Table) -> Path:
        return self.resolve(self.train if table.split == "train" else self.test)


@dataclass(frozen=True)
class HostInput:
    """The input of one host: its tables, and the text of the settings file. The text is None if the host has no such
    file."""

    settings_text: str | None
    tables: list[Table]


def encode_tables(options: TableOptions, hosts: Hosts) -> None:
    """Convert the tables of all hosts; the first host writes fitted-columns.json to its training folder.

    Raises:
        UserError: the input is invalid; nothing was written.
        PlatformError: a host was lost.
    """
    host_inputs = hosts.call(prepare_host, dict.fromkeys(hosts.resources.hosts, (options,)))
    settings = merge_settings(options, host_inputs)
    tables_by_host = {host: host_input.tables for host, host_input in host_inputs.items()}
    tables = inventory.merge(tables_by_host)
    check_tables(list(tables.values()), settings, options.columns)
    encoders = {
        host: TableEncoder(options, settings, [tables[name] for name in names])
        for host, names in inventory.assign(tables_by_host).items()
    }
    statistics_by_host = hosts.call(TableEncoder.measure, {host: (encoder,) for host, encoder in encoders.items()})
    # Statistics are merged in the order of names, so that the results do not depend on which host has which file.
    statistics = dict(sorted((name, part) for parts in statistics_by_host.values() for name, part in parts.items()))
    training_statistics = merge_training_statistics(settings, statistics)
    fitted = fit_columns(settings, training_statistics, search_medians(encoders, settings, training_statistics, hosts))
    hosts.call(
        TableEncoder.check_categories,
        {host: (encoder, fitted, statistics_by_host[host]) for host, encoder in encoders.items()},
    )
    # The fitted columns are written first, because features without them could not be interpreted.
    hosts.write(write_columns_file, {hosts.resources.first_host: (options, fitted)})
    hosts.write(encode_host, {host: (encoder, fitted, statistics_by_host[host]) for host, encoder in encoders.items()})
    logger.info(
        "made %d features with the statistics of %d training rows", len(fitted.feature_names), training_statistics.rows
    )


def write_columns_file(register_file: RegisterFile, options: TableOptions, fitted: FittedColumns) -> None:
    write_columns(options.resolve(options.train), fitted)
    register_file(options.resolve(options.train) / FILE_NAME)


def prepare_host(options: TableOptions) -> HostInput:
    """Create the output folders of this host, which are needed even if they stay empty. Return the host's input."""
    for folder in (options.train, options.test):
        options.resolve(folder).mkdir(parents=True, exist_ok=True)
    path = options.settings_file
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise UserError(f"{options.columns} is not UTF-8: {error}") from error
    return HostInput(text, list_tables(options.resolve(options.input), path))


def merge_settings(options: TableOptions, host_inputs: Mapping[str, HostInput]) -> TableSettings:
    """Return the settings, which at least one host must have.

    Raises:
        UserError: no host has the file, hosts have different files, or its content is invalid.
    """
    texts = {host_input.settings_text for host_input in host_inputs.values()} - {None}
    if len(texts) != 1:
        problem = "is on no host: add it to the input" if not texts else "differs between hosts: use one file"
        raise UserError(f"--columns {options.columns} {problem}")
    return parse_settings(str(texts.pop()), options.columns)


def merge_training_statistics(settings: TableSettings, statistics: Mapping[str, TableStatistics]) -> TableStatistics:
    """Return the statistics of all training tables; raise UserError if there is no row."""
    parts = [part for name, part in statistics.items() if name.startswith("train")]
    training_statistics = reduce(TableStatistics.merge, parts, TableStatistics.empty(settings))
    if not training_statistics.rows:
        names = ", ".join(statistics) or "no tables"
        raise UserError(f"no training data on any host: the input contains {names}; add rows to train.csv")
    return training_statistics


def search_medians(
    encoders: Mapping[str, "TableEncoder"], settings: TableSettings, training_statistics: TableStatistics, hosts: Hosts
) -> dict[str, float]:
    """Return the medians of the columns whose missing values become the median, by name."""
    counts = {
        column.name: int(count)
        for column, count in zip(settings.numeric_columns, training_statistics.moments.count, strict=True)
        if column.missing == MEDIAN and count
    }
    searches = medians.start_searches(counts)
    for round_number in range(medians.ROUND_COUNT if counts else 0):
        histograms_by_host = hosts.call(
            TableEncoder.count_median_digits,
            {host: (encoder, searches, round_number) for host, encoder in encoders.items()},
        )
        searches = medians.narrow_searches(searches, histograms_by_host.values())
    return medians.finish_searches(searches)


@dataclass(frozen=True)
class TableEncoder:
    """Measures and encodes the tables of one host, which no other host processes."""

    options: TableOptions
    settings: TableSettings
    tables: list[Table]

    def measure(self) -> dict[str, TableStatistics]:
        """Check all rows. Return the statistics of each table, by name."""
        statistics = {}
        for table in self.tables:
            path = self.options.source_path(table.name)
            statistics[table.name] = measure_table(path, self.settings, self._select_types(table))
            logger.info("read %s: %d rows", table.name, statistics[table.name].rows)
        return statistics

    def _select_types(self, table: Table) -> dict[str, str]:
        """Return the types of the columns to read; a test table may lack the target."""
        names = {name for name, _ in table.columns}
        return {name: type_ for name, type_ in self.settings.types.items() if name in names}

    def count_median_digits(self, searches: medians.Searches, round_number: int) -> medians.Histograms:
        """Return the histograms of this host's training rows for one round of the median search."""
        histograms = medians.make_empty_histograms(searches)
        types = {name: type_ for name, type_ in self.settings.types.items() if name in searches}
        for table in self.tables:
            if table.split == "train":
                blocks = read_blocks(self.options.source_path(table.name), types)
                numbers = ({name: to_numbers(column) for name, column in block.items()} for _, block in blocks)
                medians.count_digits(histograms, numbers, round_number)
        return histograms

    def check_categories(self, fitted: FittedColumns, statistics: Mapping[str, TableStatistics]) -> None:
        """Check the values of columns in which unknown categories are invalid.

        Raises:
            UserError: a value is not one of the categories; the message names file, row and column.
        """
        for column in fitted.columns:
            if isinstance(column, CategoricalColumn) and column.unknown is None:
                for table in self.tables:
                    if not statistics[table.name].counts[column.name].keys() <= set(column.categories):
                        self._refuse_unknown_category(table, column)

    def _refuse_unknown_category(self, table: Table, column: CategoricalColumn) -> None:
        path = self.options.source_path(table.name)
        for start, block in read_blocks(path, {column.name: column.type}):
            try:
                fill_codes(column, _to_codes(column, block[column.name]))
            except BadCellError as error:
                raise _make_category_error(path, start, block, error) from error

    def encode(
        self, fitted: FittedColumns, statistics: Mapping[str, TableStatistics], register_file: RegisterFile
    ) -> None:
        """Write the features of all tables, and call `register_file` with each file."""
        for table in self.tables:
            types = self._select_types(table)
            paths = list_output_paths(
                self.options.output_folder(table),
                table.stem,
                self.options.format,
                has_target=self.settings.target in types,
            )
            with self._open_outputs(paths, fitted, types, statistics[table.name].rows) as write:
                self._encode_blocks(table, types, fitted, write)
            for path in paths:
                register_file(path)
            logger.info("wrote %s", ", ".join(path.name for path in paths))

    def _open_outputs(
        self, paths: list[Path], fitted: FittedColumns, types: Mapping[str, str], rows: int
    ) -> AbstractContextManager[Write]:
        if self.options.format == NPY:
            return write_arrays(paths, rows, len(fitted.feature_names))
        return write_table(paths[0], [*fitted.feature_names, *(name for name in types if name == self.settings.target)])

    def _encode_blocks(self, table: Table, types: Mapping[str, str], fitted: FittedColumns, write: Write) -> None:
        path, target = self.options.source_path(table.name), self.settings.target
        max_rows = compute_rows_per_block(len(fitted.feature_names))

        def encode(item: tuple[int, Block]) -> tuple[Floats, Floats | None]:
            start, block = item
            try:
                features = make_features(fitted, to_values(fitted, block))
            except BadCellError as error:  # this error is possible only if the file has changed since it was measured
                raise make_cell_error(path, start, error) from error
            return features, to_numbers(block[target]) if target is not None and target in block else None

        for features, targets in map_ahead(encode, read_blocks(path, types, max_rows)):
            write(features, targets)


def encode_host(
    register_file: RegisterFile, encoder: TableEncoder, fitted: FittedColumns, statistics: Mapping[str, TableStatistics]
) -> None:
    encoder.encode(fitted, statistics, register_file)


def to_values(fitted: FittedColumns, block: Block) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
    """Return the values of all columns in the form that `make_features` requires."""
    return {
        column.name: _to_codes(column, block[column.name])
        if isinstance(column, CategoricalColumn)
        else to_numbers(block[column.name])
        for column in fitted.columns
    }


def _to_codes(column: CategoricalColumn, texts: pa.Array) -> NDArray[np.int64]:
    codes = pc.index_in(texts, value_set=pa.array(column.categories, pa.string())).fill_null(UNKNOWN_CODE)
    codes = pc.if_else(texts.is_null(), MISSING_CODE, codes)
    array: NDArray[np.int64] = codes.to_numpy(zero_copy_only=False).astype(np.int64)
    return array


def _make_category_error(path: Path, start: int, block: Block, error: BadCellError) -> UserError:
    value = str(block[error.column][error.row].as_py())[:50]
    return UserError(
        f"{path.name} row {start + error.row}: column {error.column!r} contains {value!r}, which {error.problem}: "
        "correct it, or set `unknown` for the column"
    )
