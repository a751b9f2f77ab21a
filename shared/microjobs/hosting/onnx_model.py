"""An ONNX model without a manifest, with one or more named inputs and outputs of numbers or text.

Requests and responses in JSON have the formats of TensorFlow Serving's REST API. In the format with rows, the request
has `instances` and the response has `predictions`. In the format with columns, they have `inputs` and `outputs`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from microjobs.bundle import SERVING_DEFAULT
from microjobs.errors import UserError
from microjobs.predictor import extract_first_line, open_session

from . import formats
from .content_negotiation import negotiate, parse_attribute
from .formats.csv_rows import decode_csv, read_fields
from .formats.json_rows import parse_json
from .formats.npy_rows import decode_npy
from .media_types import FORMATS, JSON, JSON_LINES, NPY, parse_media_type
from .onnx_tensors import InputSpec, Tensor, read_spec, to_tensor
from .responses import HttpError, HttpResponse, quote
from .service import Invocation

BINARY_TYPES = ("application/octet-stream", "application/x-image")
"""Content types of bodies that are the input itself. All types that begin with `image/` are handled in the same way."""

Outputs = Mapping[str, Any]
"""Arrays by the names of the outputs; an output that is a sequence is a list."""


class OnnxModel:
    """A model.onnx of any origin; see `service.Model`.

    Raises:
        UserError: ONNX Runtime cannot load the model, or the type of an input is not supported.
    """

    is_fast = False
    has_routes = False
    batch_model = None

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        self._inputs = {node.name: read_spec(node, path) for node in self._session.get_inputs()}
        self._outputs = [node.name for node in self._session.get_outputs()]
        if not self._inputs:
            raise UserError(f"{path} has no inputs: export a model with an input for the request")

    def describe(self) -> str:
        return ", ".join(f"{name}: {spec}" for name, spec in self._inputs.items())

    def invoke(self, invocation: Invocation) -> HttpResponse:
        body, content_type, accept, custom_attributes = invocation[:4]
        _check_signature(parse_attribute(custom_attributes, "signature_name"))
        media_type = parse_media_type(content_type)
        if media_type.startswith("image/") or media_type in BINARY_TYPES:
            spec = self._get_only_input(f"a body of type {media_type}")
            if not spec.takes_bytes:
                raise HttpError(415, f"Content-Type {quote(media_type)}: input {spec.name} takes {spec}; send JSON")
            response_type = negotiate(JSON, accept)[1]
            return _respond(self._run({spec.name: np.frombuffer(body, np.uint8)}), "outputs", response_type)
        request_type, response_type = negotiate(content_type, accept)
        if FORMATS[request_type] == JSON:
            inputs, member = self._read_json(parse_json(formats.to_utf8(body, content_type)))
        else:
            inputs, member = self._read_rows(body, content_type, FORMATS[request_type]), "predictions"
        return _respond(self._run(inputs), member, response_type)

    def _read_json(self, content: Any) -> tuple[dict[str, Tensor], str]:
        """Return the inputs, and the name of the member for the outputs in the response."""
        if not isinstance(content, dict):
            content = {"instances": content}
        content = dict(content)
        _check_signature(content.pop("signature_name", None))
        if list(content) == ["inputs"]:
            return self._read_columns(content["inputs"]), "outputs"
        if list(content) == ["instances"]:
            return self._read_instances(content["instances"]), "predictions"
        raise HttpError(
            400, f'the body has {", ".join(map(quote, content)) or "nothing"}: send "instances" or "inputs"'
        )

    def _read_columns(self, value: Any) -> dict[str, Tensor]:
        if not (isinstance(value, dict) and value.keys() & self._inputs.keys()):
            value = {self._get_only_input("a value without a name").name: value}
        self._check_names(value, '"inputs"')
        return {name: to_tensor(spec, value[name]) for name, spec in self._inputs.items()}

    def _read_instances(self, rows: Any) -> dict[str, Tensor]:
        if not isinstance(rows, list) or not rows:
            raise HttpError(400, f"instances is {quote(rows)}: send a list of rows")
        if not isinstance(rows[0], dict):
            spec = self._get_only_input("a row without names")
            return {spec.name: to_tensor(spec, rows)}
        for number, row in enumerate(rows):
            self._check_names(row if isinstance(row, dict) else {}, f"row {number}")
        return {name: to_tensor(spec, [row[name] for row in rows]) for name, spec in self._inputs.items()}

    def _read_rows(self, body: bytes, content_type: str, body_format: str) -> dict[str, Tensor]:
        if body_format == JSON_LINES:
            lines = formats.to_utf8(body, content_type).splitlines()
            return self._read_instances([parse_json(line) for line in lines if line.strip()])
        spec = self._get_only_input(f"a body of type {body_format}")
        if body_format == NPY:
            return {spec.name: to_tensor(spec, decode_npy(body))}
        text = formats.to_utf8(body, content_type)
        values = read_fields(text) if spec.dtype == np.object_ else _to_integers(spec, decode_csv(text))
        return {spec.name: to_tensor(spec, values)}

    def _get_only_input(self, value_description: str) -> InputSpec:
        """Return the input of a model that has only one.

        Args:
            value_description: the part of the request for this input, in words, for the error.

        Raises:
            HttpError: 400, the model has several inputs.
        """
        if len(self._inputs) > 1:
            raise HttpError(
                400, f"{value_description} is ambiguous: the model has the inputs {', '.join(self._inputs)}; send JSON"
            )
        return next(iter(self._inputs.values()))

    def _check_names(self, value: Mapping[str, Any], location: str) -> None:
        if value.keys() != self._inputs.keys():
            names = ", ".join(sorted(map(quote, value))) or "no names"
            raise HttpError(400, f"{location} has {names}: the model has the inputs {', '.join(self._inputs)}")

    def _run(self, inputs: Mapping[str, Tensor]) -> Outputs:
        """Run the model.

        Raises:
            HttpError: 400, the model does not accept the values.
        """
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
        except Exception as error:  # the exceptions of ONNX Runtime have no common base class
            raise HttpError(400, f"the model failed on these values: {extract_first_line(error)}") from error


def _check_signature(name: Any) -> None:
    if name not in (None, "", SERVING_DEFAULT):
        raise HttpError(400, f"signature_name {quote(name)} is unknown: this model has only {SERVING_DEFAULT}")


def _to_integers(spec: InputSpec, numbers: Tensor) -> Tensor:
    """Return numbers of CSV as integers if the model's input takes integers and no number has decimals."""
    has_integers = spec.dtype.kind in "iub" and np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()
    return numbers.astype(np.int64) if has_integers else numbers


def _respond(outputs: Outputs, member: str, media_type: str) -> HttpResponse:
    row_count = _count_rows(outputs)
    if FORMATS[media_type] == NPY:
        body = formats.encode(_get_only_array(outputs), media_type)
    elif FORMATS[media_type] == JSON:
        content = _unwrap_outputs(outputs) if member == "outputs" else _to_rows(outputs, row_count)
        body = _dump({member: content})
    elif FORMATS[media_type] == JSON_LINES:
        body = b"".join(_dump(row) + b"\n" for row in _to_rows(outputs, row_count))
    else:
        body = "".join(f"{','.join(_flatten(row))}\n" for row in _to_rows(outputs, row_count)).encode()
    return HttpResponse(200, [("content-type", media_type)], body, row_count=row_count or 1)


def _count_rows(outputs: Outputs) -> int | None:
    """Return the number of rows of each output; None if an output is a scalar, or the numbers differ."""
    counts = {len(value) if isinstance(value, list) or np.ndim(value) else -1 for value in outputs.values()}
    count = counts.pop()
    return None if counts or count < 0 else count


def _to_rows(outputs: Outputs, row_count: int | None) -> Sequence[Any]:
    if row_count is None:
        problem = "the outputs have no rows, or different numbers of rows"
        raise HttpError(400, f'{problem}: send "inputs" instead of "instances", and accept JSON')
    value = _unwrap_outputs(outputs)
    if len(outputs) == 1:
        return value  # type: ignore[no-any-return]  # an array or a list
    return [{name: value[row] for name, value in outputs.items()} for row in range(row_count)]


def _unwrap_outputs(outputs: Outputs) -> Any:
    """Return the value of the only output, or all outputs by name, as TensorFlow Serving does."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _get_only_array(outputs: Outputs) -> Tensor:
    value = _unwrap_outputs(outputs)
    if not isinstance(value, np.ndarray) or value.dtype == np.object_:
        raise HttpError(406, "the outputs are not one array of numbers: accept JSON")
    return value


def _flatten(value: Any) -> list[str]:
    """Return the fields of one CSV row, which has the values of all outputs."""
    if isinstance(value, dict):
        return [field for item in value.values() for field in _flatten(item)]
    if isinstance(value, np.ndarray | list):
        return [field for item in value for field in _flatten(item)]
    text = str(value)
    return ['"' + text.replace('"', '""') + '"' if set(text) & set('",\r\n') else text]


def _dump(content: Any) -> bytes:
    """Return JSON. Values that are not finite are null."""
    return orjson.dumps(content, default=_to_list, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def _to_list(value: Any) -> Any:
    """Convert an array that orjson does not support, such as one of text."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)
