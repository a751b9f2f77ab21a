"""Decoders for rows with named columns, which become the features of a model."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from microjobs.arrays import Floats
from microjobs.column_features import BadCellError, encode_texts, make_features
from microjobs.columns import MISSING_TEXTS, CategoricalColumn, FittedColumns
from microjobs.errors import UserError
from microjobs.pipelines import OnnxPipeline

from ..media_types import CSV, FORMATS, JSON_LINES
from ..responses import HttpError, quote, shorten
from .csv_rows import is_number, read_fields
from .json_rows import parse_json
from .rows import Numbers

MAX_NAMES_CHARACTERS = 300

Columns = Mapping[str, Sequence[Any]]
"""Values by name of the column; all columns have the same number of rows."""


class FeatureEncoder(Protocol):
    """Converts columns to features.

    names: names of the columns that each row must have.
    ignored_names: names of further columns that a row may have. Their values are ignored.
    """

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def ignored_names(self) -> Sequence[str]: ...

    def encode(self, columns: Columns) -> Numbers:
        """Return features of shape (rows, features). Raise HttpError 400 for a value that cannot become a feature."""


def decode_named_rows(body: bytes, media_type: str, encoder: FeatureEncoder) -> Numbers:
    """Return the features of a body in CSV with a header line, or in JSON lines with one object per line.

    Raises:
        HttpError: 400, the body is malformed, or a row cannot become features; the message names row and column.
    """
    body_format = FORMATS[media_type]
    if body_format == CSV:
        return encoder.encode(_read_csv(body, encoder))
    if body_format == JSON_LINES:
        lines = b",".join(line for line in body.splitlines() if line.strip())
        return to_features(parse_json(b"[" + lines + b"]"), encoder)
    raise HttpError(400, f"{media_type} has no names of columns: send JSON, JSON lines, or CSV with a header line")


def to_features(content: Any, encoder: FeatureEncoder) -> Numbers:
    """Return the features of JSON content: a list of objects, or an object with one list per column.

    Raises:
        HttpError: 400, a row cannot become features; the message names row and column.
    """
    if isinstance(content, dict):
        return encoder.encode(_require_lists(content, encoder))
    if not isinstance(content, list) or not content:
        raise HttpError(
            400, f"the rows are {quote(content)}: send one object per row, with {_describe_columns(encoder)}"
        )
    for row, value in enumerate(content):
        if not isinstance(value, dict):
            raise HttpError(400, f"row {row} is {quote(value)}: send an object with {_describe_columns(encoder)}")
        _check_names(value, encoder, f"row {row}")
    return encoder.encode({name: [row[name] for row in content] for name in encoder.names})


def _require_lists(content: Mapping[str, Any], encoder: FeatureEncoder) -> Columns:
    _check_names(content, encoder, "the object")
    for name, values in content.items():
        if not isinstance(values, list) or not values:
            raise HttpError(400, f"column {quote(name)} is {quote(values)}: send a list with one value per row")
    lengths = {len(values) for values in content.values()}
    if len(lengths) > 1:
        raise HttpError(400, f"the columns have {min(lengths)} to {max(lengths)} values: send the same number for each")
    return content


def _read_csv(body: bytes, encoder: FeatureEncoder) -> Columns:
    header, *rows = [fields for fields in read_fields(body) if fields] or [[]]
    for name in header:
        if header.count(name) > 1:
            raise HttpError(400, f"the header has {header.count(name)} columns {quote(name)}: send each column once")
    _check_names(header, encoder, "the header")
    if not rows:
        raise HttpError(400, "the body has a header and no rows: send at least one row")
    for row, fields in enumerate(rows):
        if len(fields) != len(header):
            raise HttpError(400, f"row {row} has {len(fields)} fields but the header has {len(header)}")
    return {
        name: [_parse_field(text) for text in texts]
        for name, texts in zip(header, zip(*rows, strict=True), strict=True)
    }


def _parse_field(text: str) -> str | None:
    return None if text in MISSING_TEXTS else text


def _check_names(names: Iterable[str], encoder: FeatureEncoder, location: str) -> None:
    name_set = set(names)
    for name in encoder.names:
        if name not in name_set:
            raise HttpError(400, f"{location} has no column {quote(name)}: send {_describe_columns(encoder)}")
    if unknown_names := name_set.difference(encoder.names, encoder.ignored_names):
        raise HttpError(
            400, f"{location} has the column {quote(min(unknown_names))}: send {_describe_columns(encoder)}"
        )


def _describe_columns(encoder: FeatureEncoder) -> str:
    return f"the columns {shorten(', '.join(encoder.names), MAX_NAMES_CHARACTERS)}"


class ColumnsEncoder:
    """Makes features in the same way as preprocessing, with the content of fitted-columns.json."""

    def __init__(self, fitted: FittedColumns) -> None:
        self._fitted = fitted
        self.names = [column.name for column in fitted.columns]
        self.ignored_names = fitted.ignored

    def encode(self, columns: Columns) -> Numbers:
        """Return features of shape (rows, features).

        Raises:
            HttpError: 400, a value cannot become a feature.
        """
        values = {
            column.name: encode_texts(column, map(_to_text, columns[column.name]))
            if isinstance(column, CategoricalColumn)
            else _to_numbers(column.name, columns[column.name])
            for column in self._fitted.columns
        }
        try:
            return make_features(self._fitted, values)
        except BadCellError as error:
            value = columns[error.column][error.row]
            problem = error.problem if value is None else f"contains {quote(value)}, which {error.problem}"
            raise HttpError(400, f"row {error.row}: column {quote(error.column)} {problem}") from None


class PipelineEncoder:
    """Makes features with the user's scikit-learn pipeline, pipeline.onnx."""

    ignored_names = ()

    def __init__(self, pipeline: OnnxPipeline) -> None:
        self._pipeline = pipeline
        self.names = pipeline.names

    def encode(self, columns: Columns) -> Numbers:
        """Return features of shape (rows, features).

        Raises:
            HttpError: 400, the pipeline rejects a value.
        """
        values = {
            name: np.array([_to_text(value) or "" for value in columns[name]], object)
            if self._pipeline.is_text(name)
            else _to_numbers(name, columns[name])
            for name in self.names
        }
        try:
            return self._pipeline.run(values)
        except UserError as error:
            raise HttpError(400, str(error)) from None


def _to_text(value: Any) -> str | None:
    """Return the text of a category. Integers and booleans become the texts that preprocessing reads."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer():
            return str(int(value))
    return str(value)


def _to_numbers(name: str, values: Sequence[Any]) -> Floats:
    numbers = np.empty(len(values))
    for row, value in enumerate(values):
        if value is None:
            numbers[row] = np.nan
        elif isinstance(value, int | float) or (isinstance(value, str) and is_number(value)):
            numbers[row] = float(value)
        else:
            raise HttpError(400, f"row {row}: column {quote(name)} contains {quote(value)}: send a number")
    return numbers
