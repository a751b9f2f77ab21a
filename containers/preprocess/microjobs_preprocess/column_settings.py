"""The user's file columns.json, which declares how each column of a table becomes features."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from microjobs.columns import NUMERIC, ONE_HOT, ORDINAL
from microjobs.errors import UserError

TARGET, DROP = "target", "drop"
MEAN, MEDIAN, MOST_FREQUENT, CONSTANT = "mean", "median", "most-frequent", "constant"
ERROR, IGNORE = "error", "ignore"

OPTIONS_BY_TYPE = {
    NUMERIC: ("missing", "scale"),
    ONE_HOT: ("missing", "unknown", "categories"),
    ORDINAL: ("missing", "unknown", "categories"),
    TARGET: (),
    DROP: (),
}
"""Options of each type of column."""


@dataclass(frozen=True)
class ColumnSettings:
    """The settings of one column.

    missing: "mean", "median", "most-frequent" or "constant"; None if missing values are invalid.
    constant: replacement of missing values if `missing` is "constant".
    scale: whether a numeric column is standardised.
    unknown: value of the feature for a text that is not a category; None if such a text is invalid.
    categories: the categories in order; None for the sorted categories of the training data.
    """

    name: str
    type: str
    missing: str | None = None
    constant: float | str | None = None
    scale: bool = True
    unknown: float | None = None
    categories: tuple[str, ...] | None = None

    @property
    def is_categorical(self) -> bool:
        return self.type in (ONE_HOT, ORDINAL)


@dataclass(frozen=True)
class TableSettings:
    """The settings of all columns, in the order of the features."""

    columns: tuple[ColumnSettings, ...]

    @property
    def names(self) -> list[str]:
        """Names of all declared columns, including those of type `drop`."""
        return [column.name for column in self.columns]

    @property
    def numeric_columns(self) -> list[ColumnSettings]:
        return [column for column in self.columns if column.type == NUMERIC]

    @property
    def categorical_columns(self) -> list[ColumnSettings]:
        return [column for column in self.columns if column.is_categorical]

    @property
    def target(self) -> str | None:
        return next((column.name for column in self.columns if column.type == TARGET), None)

    @property
    def ignored_names(self) -> tuple[str, ...]:
        """Names of the columns that do not become features."""
        return tuple(column.name for column in self.columns if column.type in (TARGET, DROP))

    @property
    def types(self) -> dict[str, str]:
        """Types of the columns that are read, by name. Columns of type `drop` are not read."""
        return {column.name: column.type for column in self.columns if column.type != DROP}


def parse_settings(text: str, source: str) -> TableSettings:
    """Parse columns.json.

    Args:
        source: name of the file, for errors.

    Raises:
        UserError: the text is not JSON, or a column's settings are invalid; the message names the column.
    """
    try:
        content = json.loads(text, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f'{source} must be an object, such as {{"age": "numeric", "price": "target"}}')
    settings = TableSettings(tuple(_parse_column(name, declaration, source) for name, declaration in content.items()))
    targets = [column.name for column in settings.columns if column.type == TARGET]
    if len(targets) > 1:
        raise UserError(f"{source} has the targets {', '.join(targets)}: declare one target")
    if not settings.numeric_columns and not settings.categorical_columns:
        raise UserError(f"{source} has no features: declare a column as {NUMERIC}, {ONE_HOT} or {ORDINAL}")
    return settings


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} occurs {names.count(name)} times")
    return dict(pairs)


def _parse_column(name: str, declaration: Any, source: str) -> ColumnSettings:
    members = {"type": declaration} if isinstance(declaration, str) else declaration
    location = f"{source}: column {name!r}"
    type_ = members.get("type") if isinstance(members, dict) else None
    if not isinstance(type_, str) or type_ not in OPTIONS_BY_TYPE:
        types = ", ".join(OPTIONS_BY_TYPE)
        raise UserError(f"{location} is {json.dumps(declaration)[:100]}: use one of the types {types}")
    options = {option: members[option] for option in members if option != "type"}
    for option in options:
        if option not in OPTIONS_BY_TYPE[type_]:
            option_names = ", ".join(OPTIONS_BY_TYPE[type_]) or "no options"
            raise UserError(f"{location} has the option {option!r}: type {type_} has {option_names}")
    settings: dict[str, Any] = {}
    for option, value in options.items():
        settings |= OPTION_PARSERS[option](type_, value, location)
    return ColumnSettings(name, type_, **settings)


def _parse_missing(type_: str, value: Any, location: str) -> Mapping[str, Any]:
    strategies = (MEAN, MEDIAN) if type_ == NUMERIC else (MOST_FREQUENT,)
    if isinstance(value, str) and value in strategies:
        return {"missing": value}
    if isinstance(value, dict) and value.keys() == {CONSTANT}:
        constant = value[CONSTANT]
        if type_ == NUMERIC and _is_number(constant):
            return {"missing": CONSTANT, "constant": float(constant)}
        if type_ != NUMERIC and isinstance(constant, str):
            return {"missing": CONSTANT, "constant": constant}
    example = 0 if type_ == NUMERIC else "unknown"
    expected = " or ".join([*map(json.dumps, strategies), json.dumps({CONSTANT: example})])
    raise UserError(f"{location} has missing {json.dumps(value)[:100]}: use {expected}")


def _parse_scale(_type: str, value: Any, location: str) -> Mapping[str, Any]:
    if not isinstance(value, bool):
        raise UserError(f"{location} has scale {json.dumps(value)[:100]}: use true or false")
    return {"scale": value}


def _parse_unknown(type_: str, value: Any, location: str) -> Mapping[str, Any]:
    if value == ERROR:
        return {"unknown": None}
    if type_ == ONE_HOT and value == IGNORE:
        return {"unknown": 0.0}
    if type_ == ORDINAL and _is_number(value):
        return {"unknown": float(value)}
    expected = f'"{ERROR}" or "{IGNORE}"' if type_ == ONE_HOT else f'"{ERROR}" or a number, such as -1'
    raise UserError(f"{location} has unknown {json.dumps(value)[:100]}: use {expected}")


def _parse_categories(_type: str, value: Any, location: str) -> Mapping[str, Any]:
    is_text_list = isinstance(value, list) and value and all(isinstance(text, str) for text in value)
    if not is_text_list or len(set(value)) < len(value):
        raise UserError(f"{location} has categories {json.dumps(value)[:100]}: use a list of different texts")
    return {"categories": tuple(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


OPTION_PARSERS: Mapping[str, Callable[[str, Any, str], Mapping[str, Any]]] = {
    "missing": _parse_missing,
    "scale": _parse_scale,
    "unknown": _parse_unknown,
    "categories": _parse_categories,
}
"""By option, the function that returns the fields of `ColumnSettings` for the option's value. Its arguments are the
column's type, the value, and the location for errors."""
