"""DataProcessing of batch transform: filters of inputs and outputs, and joined records.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html
"""

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.transform import jsonpath
from microjobs_orchestrator.local.resources.transform.jsonpath import NotThereError, Path

CSV, JSON = "text/csv", "application/json"
FORMATS = tuple(jsonpath.OPERATORS)

INPUT, OUTPUT = "SageMakerInput", "SageMakerOutput"
"""Members of a joined record: the input unless it is an object itself, and the model's answer."""

csv.field_size_limit(sys.maxsize)  # a record is not larger than MaxPayloadInMB, and may be a single field

SHOWN = 100
"""Characters of a record that an error repeats."""


class RecordError(Exception):
    """A record, or the answer to it, is not what the request says."""


@dataclass(frozen=True)
class DataProcessing:
    """What is done with the bodies of requests and their answers. Blank lines are no records here."""

    input_filter: Path
    output_filter: Path
    joins: bool
    content_type: str
    """Of the input."""
    accept: str
    """Of the answers."""
    by_lines: bool
    """Whether a body has one record per line; otherwise it is one record."""

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "DataProcessing | None":
        """What a CreateTransformJob request asks for; None if that is nothing.

        Raises:
            ValidationError: its filters are none, or its formats do not go with them.
        """
        wanted, given, taken = request.get("DataProcessing", {}), request["TransformInput"], request["TransformOutput"]
        filters = {name: wanted.get(name, "$") for name in ("InputFilter", "OutputFilter")}
        joins = wanted.get("JoinSource", "None") == "Input"
        content_type, accept = _media_type(given.get("ContentType")), _media_type(taken.get("Accept"))
        split, assemble = given.get("SplitType", "None"), taken.get("AssembleWith", "None")
        if not joins and set(filters.values()) <= {"$"}:
            return None
        if joins or filters["InputFilter"] != "$":
            _check_format("TransformInput.ContentType", content_type, "SplitType", split)
        if joins or filters["OutputFilter"] != "$":
            _check_format("TransformOutput.Accept", accept, "AssembleWith", assemble)
            _check_same("SplitType", split, "AssembleWith", assemble)
        if joins:
            _check_same("ContentType", content_type, "Accept", accept)
        formats = {"InputFilter": content_type, "OutputFilter": accept}
        paths = {
            name: jsonpath.parse(text, member=name, content_type=formats[name] if text != "$" else JSON)
            for name, text in filters.items()
        }
        return cls(paths["InputFilter"], paths["OutputFilter"], joins, content_type, accept, split == "Line")

    def before(self, body: bytes) -> bytes:
        """What the model is asked.

        Raises:
            RecordError: a record cannot be read, or has not what the filter selects.
        """
        if not self.input_filter:
            return body
        values = [_read(self.content_type, record) for record in self._records(self.content_type, body)]
        return self._written(self.content_type, [_select(self.input_filter, value, "InputFilter") for value in values])

    def after(self, body: bytes, answer: bytes) -> bytes:
        """What is kept of an answer.

        Args:
            body: what the model would have been asked without a filter.

        Raises:
            RecordError: as `before`; or the answer has not one record for each of the body.
        """
        if not self.joins and not self.output_filter:
            return answer
        predictions = self._records(self.accept, answer)
        if not self.joins:
            values = [_read(self.accept, prediction) for prediction in predictions]
        else:
            originals = self._records(self.content_type, body)
            if len(originals) == 1 and self.accept != CSV:
                predictions = [answer]  # it may be written in several lines
            if len(originals) != len(predictions):
                what = f"the model answered {len(predictions)} records to {len(originals)}"
                raise RecordError(f"{what}, and JoinSource Input needs one for each")
            pairs = zip(originals, predictions, strict=True)
            if self.accept == CSV and not self.output_filter:
                return b"".join(original + b"," + prediction + b"\n" for original, prediction in pairs)
            values = [
                _join(_read(self.accept, original), _read(self.accept, prediction)) for original, prediction in pairs
            ]
        return self._written(self.accept, [_select(self.output_filter, value, "OutputFilter") for value in values])

    def _records(self, content_type: str, body: bytes) -> list[bytes]:
        if self._is_whole(content_type):
            return [body]
        return [line.rstrip(b"\r") for line in body.split(b"\n") if line.strip()]

    def _written(self, content_type: str, values: Iterable[Any]) -> bytes:
        end = b"" if self._is_whole(content_type) else b"\n"
        return b"".join(_write(content_type, value) + end for value in values)

    def _is_whole(self, content_type: str) -> bool:
        """Return whether a body is one record, which may have several lines."""
        return content_type == JSON and not self.by_lines


def _media_type(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()


def _check_format(member: str, content_type: str, other: str, divided: str) -> None:
    if content_type not in FORMATS:
        known = ", ".join(FORMATS)
        raise ValidationError(
            f"DataProcessing needs {member} as one of {known}, and it is {content_type or 'not given'}."
        )
    if content_type == CSV and divided != "Line":
        raise ValidationError(f"DataProcessing of {CSV} needs {other} Line, and it is {divided}.")


def _check_same(member: str, value: str, other: str, other_value: str) -> None:
    if value != other_value:
        raise ValidationError(
            f"DataProcessing needs {member} and {other} to be the same: {value} is not {other_value}."
        )


def _select(path: Path, value: Any, member: str) -> Any:
    try:
        return path(value)
    except NotThereError as error:
        raise RecordError(f"{member} {path.text}: {error}") from error


def _join(original: Any, prediction: Any) -> Any:
    """Of CSV a longer row; else an object that has both."""
    if isinstance(original, _Row):
        return _Row([*original, *prediction])
    own = original if isinstance(original, dict) else {INPUT: original}
    return {**own, OUTPUT: prediction}


# --- reading and writing one record ---


class _Row(list[str]):
    """A record of CSV."""


def _read(content_type: str, record: bytes) -> Any:
    try:
        if content_type == CSV:
            # The first record may begin with a byte order mark, which would hide that its field is quoted.
            return _Row(next(csv.reader([record.decode("utf-8-sig")], strict=True)))
        return json.loads(record)
    except (ValueError, RecursionError, csv.Error) as error:
        shown = record[:SHOWN].decode(errors="replace")
        raise RecordError(f"{shown!r} is not {content_type}: {_reason(content_type, record, error)}") from error


def _reason(content_type: str, record: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if content_type == CSV and record.count(b'"') % 2:
        return "a quote is not closed on its line, and quoted line ends divide records too, as on SageMaker"
    return str(error)


def _write(content_type: str, value: Any) -> bytes:
    if content_type != CSV:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    row = value if isinstance(value, list) else [value]
    if not row:
        raise RecordError("a filter selects no column of a row")
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue().encode()
