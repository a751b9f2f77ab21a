"""The tables of metrics: series and their points, with the limits of their age and number."""

import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from microjobs_orchestrator.local.metrics.statistics import Statistics
from microjobs_orchestrator.local.sqlite import Database, Row

logger = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, dimensions TEXT NOT NULL, unit TEXT NOT NULL,
    UNIQUE (namespace, name, dimensions, unit)
);
CREATE TABLE IF NOT EXISTS points (
    series INTEGER NOT NULL, time REAL NOT NULL, is_second INTEGER NOT NULL,
    count REAL NOT NULL, total REAL NOT NULL, minimum REAL NOT NULL, maximum REAL NOT NULL, distribution TEXT,
    step INTEGER
);
CREATE INDEX IF NOT EXISTS by_series ON points (series, time);
CREATE INDEX IF NOT EXISTS by_time ON points (time);
CREATE INDEX IF NOT EXISTS seconds ON points (time) WHERE is_second;
"""

INSERT_POINT = "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

MAX_AGE_SECONDS = 455 * 24 * 3600.0
"""Maximum age of points: 455 days, as on AWS."""
MERGE_AGE_SECONDS = 3 * 3600.0
"""Age at which the points of seconds are merged into points of minutes: 3 hours, as on AWS."""
MAX_POINTS = 2_000_000
"""Maximum number of points of all series together. If there are more, the oldest points are removed. A point takes
about 100 bytes."""
REMOVED_SHARE = 0.05
"""If there are too many points, the oldest are removed until this share of MAX_POINTS is free."""
MAX_MERGED_ROWS = 2_000
"""Maximum number of rows that are merged in one transaction."""
MINUTE = 60

Dimensions = tuple[tuple[str, str], ...]
"""Pairs of names and values, sorted by name."""


def sort_dimensions(dimensions: Mapping[str, str]) -> Dimensions:
    return tuple(sorted(dimensions.items()))


@dataclass(frozen=True)
class Series:
    """The identity of a metric's series."""

    namespace: str
    name: str
    dimensions: Dimensions = ()
    unit: str = "None"

    @property
    def is_hidden(self) -> bool:
        """Whether clients of CloudWatch do not see the series: its namespace begins with a colon."""
        return self.namespace.startswith(":")


@dataclass(frozen=True)
class Point:
    """Samples of a series, at one time or in the second or minute that begins at this time."""

    time: float
    """Seconds since 1970."""
    statistics: Statistics
    is_second: bool = False
    """Whether the point has all samples of a second. Such points are merged later."""
    step: int | None = None
    """The number of the iteration, if the client sent one."""


def open_tables(path: Path) -> "Tables":
    """Open the file, or create it. Move a damaged file away, so that the server can start without its metrics."""
    try:
        return Tables(path)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise
        damaged_path = path.with_name(f"{path.name}.damaged")
        logger.warning("%s is damaged (%s), and moved to %s", path, error, damaged_path)
        path.replace(damaged_path)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return Tables(path)


class Tables:
    """The stored series. Methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA)
        self._count: int = self._database.select("SELECT COUNT(*) FROM points")[0][0]

    def close(self) -> None:
        self._database.close()

    def add(self, points: Iterable[tuple[Series, Point]]) -> None:
        with self._database.transaction() as database:
            ensure_id = cache(self._ensure_id)
            rows = [_make_row(ensure_id(series), point) for series, point in points]
            database.executemany(INSERT_POINT, rows)
        self._count += len(rows)
        if self._count > MAX_POINTS:
            self._remove_oldest()

    def _ensure_id(self, series: Series) -> int:
        """Return the id of a series, which is added if it does not exist. The caller holds a transaction."""
        if (series_id := self._find_id(series)) is not None:
            return series_id
        statement = "INSERT INTO series (namespace, name, dimensions, unit) VALUES (?, ?, ?, ?)"
        return int(self._database.connection.execute(statement, _make_key(series)).lastrowid or 0)

    def list_series(
        self,
        namespace: str | None = None,
        name: str | None = None,
        dimensions: Dimensions | None = None,
        required_dimensions: Dimensions = (),
    ) -> list[tuple[Series, float]]:
        """Return the series that have points, each with the time of its last point.

        The series are sorted by namespace, name, dimensions and unit.

        Args:
            dimensions: the series must have exactly these dimensions; None selects all.
            required_dimensions: the series must have these dimensions, and may have others.
        """
        conditions = "dimensions = COALESCE(?, dimensions)" + " AND instr(dimensions, ?)" * len(required_dimensions)
        query = (
            "SELECT namespace, name, dimensions, unit, (SELECT MAX(time) FROM points WHERE series = id) AS last"  # noqa: S608
            f" FROM series WHERE namespace = COALESCE(?, namespace) AND name = COALESCE(?, name) AND {conditions}"
            " AND last IS NOT NULL ORDER BY namespace, name, dimensions, unit"
        )
        exact = None if dimensions is None else json.dumps(dimensions)
        values = (namespace, name, exact, *map(json.dumps, required_dimensions))
        return [(_read_series(row), row[4]) for row in self._database.select(query, values)]

    def find_series(self, namespace: str, name: str, dimensions: Dimensions) -> list[Series]:
        """Return the series of a metric: one per unit in which it was recorded."""
        query = "SELECT namespace, name, dimensions, unit FROM series WHERE (namespace, name, dimensions) = (?, ?, ?)"
        values = (namespace, name, json.dumps(dimensions))
        return [_read_series(row) for row in self._database.select(f"{query} ORDER BY unit", values)]

    def read(self, series: Series, begin: float, end: float) -> list[Point]:
        """Return the points from `begin` until before `end`, sorted by time."""
        query = (
            "SELECT time, count, total, minimum, maximum, distribution, is_second, step FROM points"
            " WHERE series = ? AND time >= ? AND time < ? ORDER BY time, rowid"
        )
        rows = self._database.select(query, (self._find_id(series), begin, end))
        return [Point(row[0], Statistics.parse(*row[1:6]), bool(row[6]), row[7]) for row in rows]

    def _find_id(self, series: Series) -> int | None:
        query = "SELECT id FROM series WHERE (namespace, name, dimensions, unit) = (?, ?, ?, ?)"
        rows = self._database.select(query, _make_key(series))
        return rows[0][0] if rows else None

    def remove(self, namespace: str, dimensions: Dimensions, begin: float) -> None:
        """Remove the points since `begin` of all series with exactly these dimensions."""
        ids = "SELECT id FROM series WHERE (namespace, dimensions) = (?, ?)"
        query = f"DELETE FROM points WHERE time >= ? AND series IN ({ids})"  # noqa: S608  a constant
        with self._database.transaction() as database:
            self._count -= database.execute(query, (begin, namespace, json.dumps(dimensions))).rowcount

    # --- limits ---

    def clean(self) -> None:
        """Remove points that are too old, and merge seconds that are older than MERGE_AGE_SECONDS into minutes."""
        now = time.time()
        with self._database.transaction() as database:
            self._count -= database.execute("DELETE FROM points WHERE time < ?", (now - MAX_AGE_SECONDS,)).rowcount
            self._remove_empty_series()
        minute = (now - MERGE_AGE_SECONDS) // MINUTE * MINUTE
        while self._merge_seconds(minute):
            pass

    def _remove_oldest(self) -> None:
        excess = int(self._count - MAX_POINTS * (1 - REMOVED_SHARE))
        logger.warning("there are more than %d points of metrics: the %d oldest ones are removed", MAX_POINTS, excess)
        oldest_rows_query = "SELECT rowid FROM points ORDER BY time LIMIT ?"
        with self._database.transaction() as database:
            query = f"DELETE FROM points WHERE rowid IN ({oldest_rows_query})"  # noqa: S608  a constant
            self._count -= database.execute(query, (excess,)).rowcount
            self._remove_empty_series()

    def _remove_empty_series(self) -> None:
        self._database.change("DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM points WHERE series = id)")

    def _merge_seconds(self, end: float) -> bool:
        """Merge the seconds of the oldest minutes before `end`; return False if there is no such minute."""
        columns = "series, time, count, total, minimum, maximum, distribution, rowid"
        query = f"SELECT {columns} FROM points WHERE is_second AND time < ? ORDER BY time LIMIT ?"  # noqa: S608
        with self._database.transaction() as database:
            rows = database.execute(query, (end, MAX_MERGED_ROWS)).fetchall()
            database.executemany("DELETE FROM points WHERE rowid = ?", [(row[7],) for row in rows])
            merged = list(_merge_rows(rows))
            database.executemany(INSERT_POINT, merged)
        self._count -= len(rows) - len(merged)
        return bool(rows)


def _merge_rows(rows: Sequence[Row]) -> Iterator[Row]:
    def get_minute(row: Row) -> tuple[int, float]:
        return row[0], row[1] // MINUTE * MINUTE

    for (series_id, minute), group in groupby(sorted(rows, key=get_minute), key=get_minute):
        yield _make_row(series_id, Point(minute, Statistics.merge(Statistics.parse(*row[2:7]) for row in group)))


def _make_row(series_id: int, point: Point) -> Row:
    statistics = point.statistics
    summary = (
        statistics.count,
        statistics.total,
        statistics.minimum,
        statistics.maximum,
        statistics.format_distribution(),
    )
    return series_id, point.time, point.is_second, *summary, point.step


def _make_key(series: Series) -> Row:
    return series.namespace, series.name, json.dumps(series.dimensions), series.unit


def _read_series(row: Row) -> Series:
    dimensions = tuple((name, value) for name, value in json.loads(row[2]))
    return Series(row[0], row[1], dimensions, row[3])
