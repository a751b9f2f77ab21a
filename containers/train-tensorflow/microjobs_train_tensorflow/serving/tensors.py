"""Conversion between JSON values and the tensors of a signature, in TensorFlow Serving's row and column formats."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from microjobs.hosting.formats.json_rows import has_value_of_type
from microjobs.hosting.responses import HttpError, quote

Array = NDArray[Any]

BYTES_MEMBER = "b64"
"""Name of the member of a JSON object that stands for bytes. The value of the member is base64."""
BYTES_SUFFIX = "_bytes"
"""Outputs whose names end with this suffix are written in base64."""
ACCEPTED_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}
"""The kinds of values that a tensor accepts, by the kind of the tensor. Kinds are the codes of NumPy's `dtype.kind`."""


OUTPUT_KINDS = "fiubO"
"""Kinds of outputs that responses can contain, by NumPy's codes; objects are bytes."""
WIDER_TYPES = (np.dtype(np.int8), np.dtype(np.float32))
"""NumPy's types that replace types of the package ml_dtypes, such as int4 and bfloat16. The first type that can
represent all values of the replaced type is used."""
USER_DEFINED = 2
"""Value of `dtype.isbuiltin` for types of other packages. The `kind` of such a type (V or f) says nothing about its
values."""


@dataclass(frozen=True)
class TensorSpec:
    """Type and shape of an input.

    Args:
        dtype: the type of an element; `object` stands for strings.
        shape: None for an unknown rank; a dimension is None if it may have any size.
    """

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @property
    def kind(self) -> str:
        """NumPy's code for the kind of the values. The kind of bfloat16 is f."""
        return widen(self.dtype).kind


class Signature(Protocol):
    """A function of a SavedModel."""

    inputs: Mapping[str, TensorSpec]

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the outputs by name.

        Raises:
            HttpError: the model rejects the inputs, or failed.
        """


def widen(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that replaces a type of ml_dtypes, or the type itself."""
    if dtype.isbuiltin != USER_DEFINED:
        return dtype
    return next((wider for wider in WIDER_TYPES if np.can_cast(dtype, wider)), dtype)


def widen_outputs(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return outputs of types that responses can contain.

    Raises:
        HttpError: 500, an output has another type, such as complex numbers.
    """
    widened = {name: array.astype(widen(array.dtype), copy=False) for name, array in outputs.items()}
    for name, array in widened.items():
        if array.dtype.kind not in OUTPUT_KINDS:
            remedy = "save a signature with real numbers, booleans or text as outputs"
            raise HttpError(
                500, f"output {name!r} has the type {array.dtype}, which responses cannot contain: {remedy}"
            )
    return widened


def read_rows(instances: Any, inputs: Mapping[str, TensorSpec]) -> Mapping[str, Array]:
    """Convert the member `instances`: one value per row, or one object with all inputs per row.

    Raises:
        HttpError: 400, the rows do not match the inputs.
    """
    if not isinstance(instances, list) or not instances:
        raise HttpError(400, f'"instances" is {quote(instances)}: send a list with at least one row')
    if not _is_named(instances[0]):
        return {name: make_array(instances, inputs[name], name) for name in [_get_single_input_name(inputs)]}
    for number, row in enumerate(instances):
        if not _is_named(row) or row.keys() != inputs.keys():
            names = ", ".join(inputs)
            raise HttpError(400, f"row {number} is {quote(row)}: send an object with the inputs {names}")
    return {name: make_array([row[name] for row in instances], spec, name) for name, spec in inputs.items()}


def read_columns(values: Any, inputs: Mapping[str, TensorSpec]) -> Mapping[str, Array]:
    """Convert the member `inputs`: one object with all inputs, or the value of the only input.

    Raises:
        HttpError: 400, the values do not match the inputs.
    """
    if not _is_named(values):
        return {name: make_array(values, inputs[name], name) for name in [_get_single_input_name(inputs)]}
    if values.keys() != inputs.keys():
        raise HttpError(400, f'"inputs" has {_join(values)}: the signature has the inputs {_join(inputs)}')
    return {name: make_array(values[name], spec, name) for name, spec in inputs.items()}


def make_array(values: Any, spec: TensorSpec, name: str) -> Array:
    """Convert the JSON value of one input.

    Raises:
        HttpError: 400, the value has another type or shape than the input.
    """
    array = _make_strings(values, name) if spec.kind == "O" else _make_numbers(values, spec, name)
    if spec.shape is not None and not _fits(array.shape, spec.shape):
        expected = ", ".join("?" if size is None else str(size) for size in spec.shape)
        raise HttpError(400, f"input {name!r} has shape {array.shape}: the signature expects ({expected})")
    return array


def _make_numbers(values: Any, spec: TensorSpec, name: str) -> Array:
    dtype, kind = spec.dtype, spec.kind
    # Types are checked before `np.array`, which would give each element the width of the longest text, and convert true
    # to 1.
    if has_value_of_type(values, (str, dict) if kind == "b" else (str, dict, bool)):
        raise HttpError(400, f"input {name!r} is {quote(values)}: the signature expects {dtype}")
    try:
        array = np.array(values)
    except (ValueError, OverflowError):
        raise HttpError(400, f"input {name!r} is {quote(values)}: its lists differ in length or depth") from None
    if not array.size and isinstance(values, list):
        return array.astype(dtype)
    if array.dtype.kind not in ACCEPTED_KINDS.get(kind, ""):
        raise HttpError(400, f"input {name!r} is {quote(values)}: the signature expects {dtype}")
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if kind in "iu" and (converted != array).any():
        raise HttpError(400, f"input {name!r} is {quote(values)}: a number is out of the range of {dtype}")
    return converted


def _make_strings(values: Any, name: str) -> Array:
    try:
        strings = _encode_strings(values.tolist() if isinstance(values, np.ndarray) else values, name)
        array = np.array(strings, object)
    except RecursionError:
        raise HttpError(
            400, f"input {name!r} is nested too deeply: send lists as deep as the signature's shape"
        ) from None
    if any(isinstance(item, list) for item in array.flat):
        raise HttpError(400, f"input {name!r} is {quote(values)}: its lists differ in length or depth")
    return array


def _encode_strings(value: Any, name: str) -> Any:
    """Return nested lists with bytes in place of strings and of objects with base64."""
    if isinstance(value, list):
        return [_encode_strings(item, name) for item in value]
    if isinstance(value, bytes):
        return value
    try:
        if isinstance(value, str):
            return value.encode()
        return base64.b64decode(value[BYTES_MEMBER], validate=True)
    except (TypeError, KeyError, ValueError):
        # ValueError means that the text is not base64, or has half of a surrogate pair
        raise HttpError(
            400, f'input {name!r} contains {quote(value)}: send text, or bytes as {{"{BYTES_MEMBER}": "…"}}'
        ) from None


def write_rows(outputs: Mapping[str, Array], row_count: int) -> Any:
    """Return one value per row, or one object with all outputs per row, for JSON.

    Raises:
        HttpError: 500, an output has another number of rows than the request.
    """
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != row_count:
            message = f'output {name!r} has shape {array.shape} for {row_count} rows: send "inputs", not "instances"'
            raise HttpError(500, message)
    if len(outputs) == 1:
        return write_columns(outputs)
    values = {name: _make_serializable(name, array) for name, array in outputs.items()}
    return [{name: column[row] for name, column in values.items()} for row in range(row_count)]


def write_columns(outputs: Mapping[str, Array]) -> Any:
    """Return the value of the only output, or one object with all outputs, for JSON."""
    values = {name: _make_serializable(name, array) for name, array in outputs.items()}
    return next(iter(values.values())) if len(values) == 1 else values


def _make_serializable(name: str, array: Array) -> Any:
    """Return numbers as an array, and strings as nested lists. `rest_api.dump` can write both as JSON."""
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array) if array.ndim else array[()]
    return _decode_strings(array.tolist(), as_base64=name.endswith(BYTES_SUFFIX))


def _decode_strings(value: Any, *, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_decode_strings(item, as_base64=as_base64) for item in value]
    try:
        if not as_base64:
            return value.decode()
    except UnicodeDecodeError:  # only base64 can represent these bytes in JSON
        pass
    return {BYTES_MEMBER: base64.b64encode(value).decode()}


def _is_named(value: Any) -> bool:
    """Return whether a value is an object with named inputs, and not one with bytes."""
    return isinstance(value, dict) and value.keys() != {BYTES_MEMBER}


def _get_single_input_name(inputs: Mapping[str, TensorSpec]) -> str:
    if len(inputs) != 1:
        raise HttpError(400, f"the signature has the inputs {_join(inputs)}: send an object with them")
    return next(iter(inputs))


def _fits(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    return len(shape) == len(expected) and all(
        expected_size in (None, size) for size, expected_size in zip(shape, expected, strict=True)
    )


def _join(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "nothing"
