"""Fits columns: computes `FittedColumns` from the user's settings and the statistics of the training rows."""

from collections.abc import Mapping

import numpy as np

from microjobs.columns import CategoricalColumn, Column, FittedColumns, NumericColumn, sort_categories
from microjobs.errors import UserError

from .column_settings import CONSTANT, MEDIAN, ColumnSettings, TableSettings
from .moments import Moments
from .table_statistics import TableStatistics


def fit_columns(settings: TableSettings, statistics: TableStatistics, medians: Mapping[str, float]) -> FittedColumns:
    """Return the fitted columns. Their values equal those of scikit-learn's SimpleImputer, StandardScaler and encoders.

    Args:
        statistics: statistics of all training rows.
        medians: median of each column whose missing values become the median.

    Raises:
        UserError: a column has no value, a category is not in the user's list, or two features have the same name.
    """
    numeric = dict(
        zip(
            [column.name for column in settings.numeric_columns],
            _fit_numeric(settings, statistics, medians),
            strict=True,
        )
    )
    columns: list[Column] = []
    for column in settings.columns:
        if column.name in numeric:
            columns.append(numeric[column.name])
        elif column.is_categorical:
            columns.append(_fit_categorical(column, statistics))
    fitted = FittedColumns(tuple(columns), settings.ignored_names)
    for name in fitted.feature_names:
        if fitted.feature_names.count(name) > 1:
            raise UserError(f"two features have the name {name!r}: rename a column")
    return fitted


def _fit_numeric(
    settings: TableSettings, statistics: TableStatistics, medians: Mapping[str, float]
) -> list[NumericColumn]:
    if not settings.numeric_columns:
        return []
    moments = statistics.moments
    for column, count in zip(settings.numeric_columns, moments.count, strict=True):
        if not count and column.missing != CONSTANT:
            raise UserError(f"column {column.name!r} has no value in any training row: drop the column")
    fills = [
        _find_fill(column, float(mean), medians)
        for column, mean in zip(settings.numeric_columns, moments.mean, strict=True)
    ]
    # A filled value counts like any other value, as in a scikit-learn pipeline of an imputer and a scaler.
    fill_moments = Moments(
        count=statistics.rows - moments.count, mean=np.array(fills), squared_deviations=np.zeros(len(fills))
    )
    scaler = moments.merge(fill_moments).make_scaler()
    return [
        NumericColumn(
            column.name,
            mean if column.scale else 0.0,
            scale if column.scale else 1.0,
            fill if column.missing else None,
        )
        for column, mean, scale, fill in zip(settings.numeric_columns, scaler.mean, scaler.scale, fills, strict=True)
    ]


def _find_fill(column: ColumnSettings, mean: float, medians: Mapping[str, float]) -> float:
    """Return the replacement of missing values. The result has no effect if the column has no `missing`."""
    if column.missing == CONSTANT:
        return float(column.constant or 0.0)
    return medians[column.name] if column.missing == MEDIAN else mean


def _fit_categorical(column: ColumnSettings, statistics: TableStatistics) -> CategoricalColumn:
    counts = statistics.counts[column.name]
    fill = _find_fill_text(column, counts)
    texts = {*counts, fill} if fill is not None and statistics.missing_counts[column.name] else {*counts}
    categories = column.categories or sort_categories(texts)
    if not categories:
        raise UserError(f"column {column.name!r} has no value in any training row: drop the column")
    if column.unknown is None and (unknown := texts - set(categories)):
        raise UserError(
            f"column {column.name!r} contains {min(unknown)[:50]!r}, which is not one of its declared categories: add "
            "it, or set `unknown`"
        )
    return CategoricalColumn(column.name, column.type, tuple(categories), fill, column.unknown)


def _find_fill_text(column: ColumnSettings, counts: Mapping[str, int]) -> str | None:
    """Return the replacement of missing texts: a constant, or the first of the most frequent categories."""
    if column.missing == CONSTANT:
        return str(column.constant)
    if column.missing is None:
        return None
    if not counts:
        raise UserError(f"column {column.name!r} has no value in any training row: drop the column")
    highest_count = max(counts.values())
    return sort_categories(text for text, count in counts.items() if count == highest_count)[0]
