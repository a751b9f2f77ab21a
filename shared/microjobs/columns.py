"""The file fitted-columns.json, which states how preprocessing turned the named columns of tables into features.

Standard library only; `microjobs.column_features` computes the features.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from microjobs.errors import UserError
from microjobs.files import write_text

FILE_NAME = "fitted-columns.json"

NUMERIC, ONE_HOT, ORDINAL = "numeric", "one-hot", "ordinal"

MAX_DIGITS = 20
"""Maximum number of digits of a category that is sorted as an integer; 64-bit integers have no more."""

MISSING_TEXTS = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
        *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""Texts of CSV fields that are missing values, as in pandas."""


@dataclass(frozen=True)
class NumericColumn:
    """A column of numbers. It becomes one feature: (value - mean) / scale.

    fill: replaces a missing value, before scaling; None if missing values are invalid.
    """

    name: str
    mean: float
    scale: float
    fill: float | None = None
    type: str = NUMERIC

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (self.name,)


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of texts. It becomes one feature per category (one-hot), or the index of the category (ordinal).

    fill: replaces a missing text; None if missing texts are invalid.
    unknown: value of each feature for a text that is not a category; None if such a text is invalid. For one-hot,
        `unknown` is 0 or None.
    """

    name: str
    type: str
    categories: tuple[str, ...]
    fill: str | None = None
    unknown: float | None = None

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, as scikit-learn forms them."""
        return (self.name,) if self.type == ORDINAL else tuple(f"{self.name}_{text}" for text in self.categories)

    @cached_property
    def codes(self) -> Mapping[str, int]:
        """Index of each category."""
        return {text: code for code, text in enumerate(self.categories)}


Column = NumericColumn | CategoricalColumn


@dataclass(frozen=True)
class FittedColumns:
    """The columns of a table.

    columns: the columns that become features, in the order of the features.
    ignored: names of columns that do not become features, such as the target.
    """

    columns: tuple[Column, ...]
    ignored: tuple[str, ...] = ()

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(name for column in self.columns for name in column.feature_names)


def sort_categories(texts: Iterable[str]) -> tuple[str, ...]:
    """Sort categories as scikit-learn does: by value if all are integers, otherwise by code point."""
    sorted_texts = sorted(set(texts))
    return tuple(sorted(sorted_texts, key=int) if all(map(_is_integer, sorted_texts)) else sorted_texts)


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return text.isascii() and digits.isdecimal() and len(digits) <= MAX_DIGITS and text == str(int(text))


def write_columns(folder: Path, fitted: FittedColumns) -> None:
    write_text(folder / FILE_NAME, json.dumps(asdict(fitted), indent=1))


def read_columns(folder: Path) -> FittedColumns | None:
    """Return the fitted columns in a folder; None if the features were not made from columns.

    Raises:
        UserError: fitted-columns.json is invalid.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        return parse_columns(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} has no fitted columns ({error!r}): write it with the preprocess job") from error


def parse_columns(content: Mapping[str, Any]) -> FittedColumns:
    """Return the fitted columns for which `asdict` returns `content`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: the content is invalid.
    """
    fitted = FittedColumns(
        tuple(_parse_column(column) for column in content["columns"]), tuple(map(str, content["ignored"]))
    )
    names = [column.name for column in fitted.columns]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"the column names are {names}")
    return fitted


def _parse_column(content: Mapping[str, Any]) -> Column:
    name, type_, fill = str(content["name"]), content["type"], content["fill"]
    if type_ == NUMERIC:
        mean, scale = float(content["mean"]), float(content["scale"])
        column = NumericColumn(name, mean, scale, None if fill is None else float(fill))
        if not all(map(math.isfinite, (mean, scale, column.fill or 0.0))) or not scale:
            raise ValueError(f"column {name!r} has mean {mean}, scale {scale} and fill {fill}")
        return column
    categories = tuple(map(str, content["categories"]))
    if type_ not in (ONE_HOT, ORDINAL) or not categories or len(set(categories)) < len(categories):
        raise ValueError(f"column {name!r} has type {type_!r} and {len(categories)} categories")
    unknown = None if content["unknown"] is None else float(content["unknown"])
    if unknown is not None and (not math.isfinite(unknown) or (type_ == ONE_HOT and unknown)):
        raise ValueError(f"column {name!r} has the value {unknown} for unknown categories")
    return CategoricalColumn(name, type_, categories, None if fill is None else str(fill), unknown)
