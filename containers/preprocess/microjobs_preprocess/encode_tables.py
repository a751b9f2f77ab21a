"""Turns tables with named columns into features, fitted to the training rows of all hosts.

The first host calls functions on all hosts: list files (headers), measure (first pass over the rows), search medians
(only for columns that need them), encode (last pass). Nothing is written before all input has been checked. Only
headers, statistics, histograms and the fitted columns travel between hosts.
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
from microjobs.hosts import Hosts, Register

from . import medians
from .column_settings import MEDIAN, TableSettings, parse_settings
from .fit_columns import fit_columns
from .pipelining import map_ahead
from .table_statistics import TableStatistics, cell_error, measure_table
from .table_writers import NPY, Write, output_paths, write_arrays, write_table
from .tables import Block, Table, check_tables, read_blocks, rows_per_block, survey, to_numbers

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class TableTask:
    """Folders of input and results, and the options. Folders are `LocalPath`s, which each host resolves for itself.

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

    def source(self, name: str) -> Path:
        return self.resolve(self.input) / name

    def output_folder(self, table: Table) -> Path:
        return self.resolve(self.train if table.split == "train" else self.test)


@dataclass(frozen=True)
class Survey:
    """The input of one host: the text of the settings file, None if the host does not have it, and the tables."""

    settings: str | None
    tables: list[Table]


def encode_tables(task: TableTask, hosts: Hosts) -> None:
    """Call all functions on the hosts; the first host writes fitted-columns.json to its training folder.

    Raises:
        UserError: the input is invalid; nothing was written.
        PlatformError: a host was lost.
    """
    surveys = hosts.call(survey_host, dict.fromkeys(hosts.resources.hosts, (task,)))
    settings = merge_settings(task, surveys)
    tables = {host: survey.tables for host, survey in surveys.items()}
    files = inventory.merge(tables)
    check_tables(list(files.values()), settings, task.columns)
    jobs = {
        host: HostJob(task, settings, [files[name] for name in names])
        for host, names in inventory.assign(tables).items()
    }
    measured = hosts.call(HostJob.measure, {host: (job,) for host, job in jobs.items()})
    # In the order of names, so that the results do not depend on which host has which file.
    statistics = dict(sorted((name, part) for parts in measured.values() for name, part in parts.items()))
    total = sum_training_rows(settings, statistics)
    fitted = fit_columns(settings, total, search_medians(jobs, settings, total, hosts))
    hosts.call(HostJob.check_categories, {host: (job, fitted, measured[host]) for host, job in jobs.items()})
    # The fitted columns are written first, because features without them could not be interpreted.
    hosts.write(write_columns_file, {hosts.resources.first_host: (task, fitted)})
    hosts.write(encode_host, {host: (job, fitted, measured[host]) for host, job in jobs.items()})
    logger.info("made %d features with the statistics of %d training rows", len(fitted.features), total.rows)


def write_columns_file(register: Register, task: TableTask, fitted: FittedColumns) -> None:
    write_columns(task.resolve(task.train), fitted)
    register(task.resolve(task.train) / FILE_NAME)


def survey_host(task: TableTask) -> Survey:
    """Return this host's input. Create its output folders, which are needed even if they stay empty."""
    for folder in (task.train, task.test):
        task.resolve(folder).mkdir(parents=True, exist_ok=True)
    path = task.settings_file
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise UserError(f"{task.columns} is not UTF-8: {error}") from error
    return Survey(text, survey(task.resolve(task.input), path))


def merge_settings(task: TableTask, surveys: Mapping[str, Survey]) -> TableSettings:
    """Return the settings, which at least one host must have.

    Raises:
        UserError: no host has the file, hosts have different files, or its content is invalid.
    """
    texts = {survey.settings for survey in surveys.values()} - {None}
    if len(texts) != 1:
        problem = "is on no host: add it to the input" if not texts else "differs between hosts: use one file"
        raise UserError(f"--columns {task.columns} {problem}")
    return parse_settings(str(texts.pop()), task.columns)


def sum_training_rows(settings: TableSettings, statistics: Mapping[str, TableStatistics]) -> TableStatistics:
    """Return the statistics of all training tables; raise UserError if there is no row."""
    parts = [part for name, part in statistics.items() if name.startswith("train")]
    total = reduce(TableStatistics.merge, parts, TableStatistics.empty(settings))
    if not total.rows:
        names = ", ".join(statistics) or "no tables"
        raise UserError(f"no training data on any host: the input contains {names}; add rows to train.csv")
    return total


def search_medians(
    jobs: Mapping[str, "HostJob"], settings: TableSettings, total: TableStatistics, hosts: Hosts
) -> dict[str, float]:
    """Return the medians of the columns whose missing values become the median, by name."""
    counts = {
        column.name: int(count)
        for column, count in zip(settings.numeric, total.moments.count, strict=True)
        if column.missing == MEDIAN and count
    }
    searches = medians.start_searches(counts)
    for round_ in range(medians.ROUNDS if counts else 0):
        parts = hosts.call(HostJob.count_digits, {host: (job, searches, round_) for host, job in jobs.items()})
        searches = medians.narrow_searches(searches, parts.values())
    return medians.finish_searches(searches)


@dataclass(frozen=True)
class HostJob:
    """The work of one host: its tables, which no other host processes."""

    task: TableTask
    settings: TableSettings
    tables: list[Table]

    def measure(self) -> dict[str, TableStatistics]:
        """Check all rows. Return the statistics of each table, by name."""
        measured = {}
        for table in self.tables:
            path = self.task.source(table.name)
            measured[table.name] = measure_table(path, self.settings, self._present_types(table))
            logger.info("read %s: %d rows", table.name, measured[table.name].rows)
        return measured

    def _present_types(self, table: Table) -> dict[str, str]:
        """Return the types of the columns to read; a test table may lack the target."""
        names = {name for name, _ in table.columns}
        return {name: kind for name, kind in self.settings.types.items() if name in names}

    def count_digits(self, searches: medians.Searches, round_: int) -> medians.Histograms:
        histograms = medians.empty_histograms(searches)
        types = {name: kind for name, kind in self.settings.types.items() if name in searches}
        for table in self.tables:
            if table.split == "train":
                blocks = read_blocks(self.task.source(table.name), types)
                numbers = ({name: to_numbers(column) for name, column in block.items()} for _, block in blocks)
                medians.count_digits(histograms, numbers, round_)
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
                        self._refuse_unknown(table, column)

    def _refuse_unknown(self, table: Table, column: CategoricalColumn) -> None:
        path = self.task.source(table.name)
        for start, block in read_blocks(path, {column.name: column.type}):
            try:
                fill_codes(column, _to_codes(column, block[column.name]))
            except BadCellError as error:
                raise _category_error(path, start, block, error) from error

    def encode(self, fitted: FittedColumns, statistics: Mapping[str, TableStatistics], register: Register) -> None:
        """Write the features of all tables, and call `register` with each file."""
        for table in self.tables:
            types = self._present_types(table)
            paths = output_paths(
                self.task.output_folder(table),
                table.name.partition(".")[0],
                self.task.format,
                has_target=self.settings.target in types,
            )
            with self._open(paths, fitted, types, statistics[table.name].rows) as write:
                self._encode_blocks(table, types, fitted, write)
            for path in paths:
                register(path)
            logger.info("wrote %s", ", ".join(path.name for path in paths))

    def _open(
        self, paths: list[Path], fitted: FittedColumns, types: Mapping[str, str], rows: int
    ) -> AbstractContextManager[Write]:
        if self.task.format == NPY:
            return write_arrays(paths, rows, len(fitted.features))
        return write_table(paths[0], [*fitted.features, *(name for name in types if name == self.settings.target)])

    def _encode_blocks(self, table: Table, types: Mapping[str, str], fitted: FittedColumns, write: Write) -> None:
        path, target = self.task.source(table.name), self.settings.target
        max_rows = rows_per_block(len(fitted.features))

        def encode(item: tuple[int, Block]) -> tuple[Floats, Floats | None]:
            start, block = item
            try:
                features = make_features(fitted, to_values(fitted, block))
            except BadCellError as error:  # only if the file has changed since it was measured
                raise cell_error(path, start, error) from error
            return features, to_numbers(block[target]) if target is not None and target in block else None

        for features, targets in map_ahead(encode, read_blocks(path, types, max_rows)):
            write(features, targets)


def encode_host(
    register: Register, job: HostJob, fitted: FittedColumns, statistics: Mapping[str, TableStatistics]
) -> None:
    job.encode(fitted, statistics, register)


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


def _category_error(path: Path, start: int, block: Block, error: BadCellError) -> UserError:
    value = str(block[error.column][error.row].as_py())[:50]
    return UserError(
        f"{path.name} row {start + error.row}: column {error.column!r} contains {value!r}, which {error.problem}: "
        "correct it, or set `unknown` for the column"
    )
