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
from microjobs_orchestrator.local.resources.transform.jsonpath import MissingValueError, Path

CSV, JSON = "text/csv", "application/json"

INPUT, OUTPUT = "SageMakerInput", "SageMakerOutput"
"""Members of a joined record. `SageMakerInput` is the input, if it is not a JSON object. `SageMakerOutput` is the
response of the model."""

csv.field_size_limit(sys.maxsize)  # MaxPayloadInMB limits records, so their fields need no limit of their own

MAX_SHOWN_BYTES = 100
"""Maximum number of bytes of a record that an error quotes."""


class RecordError(Exception):
    """A record of the input or of a response is missing, has the wrong format, or lacks a value. The request names the
    format, and its filters select the values."""


@dataclass(frozen=True)
class DataProcessing:
    """Filters and joins the bodies of requests and responses. Blank lines are not records."""

    input_filter: Path
    output_filter: Path
    joins_input: bool
    content_type: str
    accept: str
    has_record_per_line: bool
    """Whether a body has one record per line. Otherwise, the body is one record."""

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> "DataProcessing | None":
        """Return the DataProcessing of a request; None if it changes no record.

        Raise ValidationError if a filter does not fit the formats of the records.
        """
        source, output, members = (
            request.get(name, {}) for name in ("TransformInput", "TransformOutput", "DataProcessing")
        )
        content_type, accept = _parse_media_type(source.get("ContentType")), _parse_media_type(output.get("Accept"))
        split, assemble = source.get("SplitType", "None"), output.get("AssembleWith", "None")
        joins_input = members.get("JoinSource", "None") == "Input"
        input_text, output_text = members.get("InputFilter", "$"), members.get("OutputFilter", "$")
        if not joins_input and input_text == output_text == "$":
            return None
        if joins_input or input_text != "$":
            _check_format("TransformInput.ContentType", content_type, "SplitType", split)
        if joins_input or output_text != "$":
            _check_format("TransformOutput.Accept", accept, "AssembleWith", assemble)
            _check_same("SplitType", split, "AssembleWith", assemble)
        if joins_input:
            _check_same("ContentType", content_type, "Accept", accept)
        # The path `$` is valid for all content types, also for those that filters do not support.
        input_filter = jsonpath.parse(input_text, "InputFilter", content_type if input_text != "$" else JSON)
        output_filter = jsonpath.parse(output_text, "OutputFilter", accept if output_text != "$" else JSON)
        return cls(input_filter, output_filter, joins_input, content_type, accept, split == "Line")

    def filter_input(self, body: bytes) -> bytes:
        """Return the body of the model's request. Raise RecordError if a record does not fit the filter."""
        if not self.input_filter.steps:
            return body
        values = [_parse_record(self.content_type, record) for record in self._split(self.content_type, body)]
        return self._write(
            self.content_type, [_apply_filter(self.input_filter, value, "InputFilter") for value in values]
        )

    def filter_output(self, body: bytes, response: bytes) -> bytes:
        """Return the output for a response to `body`. Raise RecordError for a malformed or missing record."""
        if not self.joins_input and not self.output_filter.steps:
            return response
        predictions = self._split(self.accept, response)
        if not self.joins_input:
            values = [_parse_record(self.accept, prediction) for prediction in predictions]
        else:
            originals = self._split(self.content_type, body)
            if len(originals) == 1 and self.accept != CSV:
                predictions = [response]  # a response that is one record may have several lines
            if len(originals) != len(predictions):
                counts = f"the model returned {len(predictions)} records for {len(originals)} input records"
                raise RecordError(f"{counts}: JoinSource Input requires one per input record")
            pairs = list(zip(originals, predictions, strict=True))
            if self.accept == CSV and not self.output_filter.steps:
                return b"".join(original + b"," + prediction + b"\n" for original, prediction in pairs)
            values = [
                _join_records(_parse_record(self.accept, left), _parse_record(self.accept, right))
                for left, right in pairs
            ]
        return self._write(self.accept, [_apply_filter(self.output_filter, value, "OutputFilter") for value in values])

    def _split(self, content_type: str, body: bytes) -> list[bytes]:
        if self._is_single_record(content_type):
            return [body]
        return [line.rstrip(b"\r") for line in body.split(b"\n") if line.strip()]

    def _write(self, content_type: str, values: Iterable[Any]) -> bytes:
        end = b"" if self._is_single_record(content_type) else b"\n"
        return b"".join(_format_record(content_type, value) + end for value in values)

    def _is_single_record(self, content_type: str) -> bool:
        """Return whether a body is one record, which may have several lines."""
        return content_type == JSON and not self.has_record_per_line


def _parse_media_type(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()


def _check_format(member: str, content_type: str, split_member: str, split: str) -> None:
    if content_type not in jsonpath.OPERATORS:
        content_types, text = ", ".join(jsonpath.OPERATORS), content_type or "missing"
        raise ValidationError(f"DataProcessing needs {member} to be one of {content_types}; it is {text}.")
    if content_type == CSV and split != "Line":
        raise ValidationError(f"DataProcessing of {CSV} needs {split_member} Line; it is {split}.")


def _check_same(name: str, value: str, other_name: str, other_value: str) -> None:
    if value != other_value:
        message = f"DataProcessing needs {name} and {other_name} to be the same: {value} is not {other_value}."
        raise ValidationError(message)


def _apply_filter(path: Path, value: Any, member: str) -> Any:
    try:
        return path.select(value)
    except MissingValueError as error:
        raise RecordError(f"{member} {path.text}: {error}") from error


def _join_records(original: Any, prediction: Any) -> Any:
    if isinstance(original, _Row):
        return _Row([*original, *prediction])
    members = original if isinstance(original, dict) else {INPUT: original}
    return {**members, OUTPUT: prediction}


# --- reading and writing one record ---


class _Row(list[str]):
    """A record of CSV."""


def _parse_record(content_type: str, record: bytes) -> Any:
    try:
        if content_type == CSV:
            # A byte order mark before the first record would hide the quote of its first field.
            return _Row(next(csv.reader([record.decode("utf-8-sig")], strict=True)))
        return json.loads(record)
    except (ValueError, RecursionError, csv.Error) as error:
        quoted_record = record[:MAX_SHOWN_BYTES].decode(errors="replace")
        raise RecordError(
            f"{quoted_record!r} is not {content_type}: {_describe_error(content_type, record, error)}"
        ) from error


def _describe_error(content_type: str, record: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if content_type == CSV and record.count(b'"') % 2:
        return "a quoted field does not end on its line; as on SageMaker, a line break ends a record even inside quotes"
    return str(error)


def _format_record(content_type: str, value: Any) -> bytes:
    if content_type != CSV:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    row = value if isinstance(value, list) else [value]
    if not row:
        raise RecordError("the filter selects no column of a row")
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue().encode()
