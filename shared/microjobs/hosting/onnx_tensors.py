"""Conversion between JSON values and the inputs and outputs of an ONNX model of any kind."""

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microjobs.errors import UserError

from .responses import HttpError, quote

DTYPES_BY_ONNX_TYPE: dict[str, DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
"""numpy's types for the ONNX types of inputs that JSON can represent."""

Tensor = NDArray[Any]


@dataclass(frozen=True)
class InputSpec:
    """Name, type and shape of an input of a model; a dimension of any size is None."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    @property
    def takes_bytes(self) -> bool:
        """Whether the input is a file's content, such as an encoded image."""
        return self.dtype == np.uint8 and len(self.shape) == 1

    def __str__(self) -> str:
        type_name = "text" if self.dtype == np.object_ else self.dtype.name
        return f"{type_name} of shape ({', '.join('?' if size is None else str(size) for size in self.shape)})"


def read_spec(node: Any, model: Path) -> InputSpec:
    """Return the specification of an input of an ONNX Runtime session.

    Raises:
        UserError: the type of the input is not supported.
    """
    if node.type not in DTYPES_BY_ONNX_TYPE:
        raise UserError(f"{model}: input {node.name} has type {node.type}, which is not supported: export a tensor")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
    return InputSpec(node.name, np.dtype(DTYPES_BY_ONNX_TYPE[node.type]), shape)


def to_tensor(spec: InputSpec, value: Any) -> Tensor:
    """Convert a JSON value or an array to the type and the shape of an input.

    Raises:
        HttpError: 400, the value has the wrong type or shape, or is out of range.
    """
    if spec.takes_bytes and isinstance(value, dict) and value.keys() == {"b64"}:
        return _decode_base64(spec, value["b64"])
    array = _to_strings(value) if spec.dtype == np.object_ else _to_numbers(spec, value)
    array = _add_dimension(array, spec.shape)
    if array.ndim != len(spec.shape) or any(
        size not in (None, actual) for size, actual in zip(spec.shape, array.shape, strict=True)
    ):
        raise HttpError(400, f"input {spec.name} has shape {array.shape}: send {spec}")
    return array


def _decode_base64(spec: InputSpec, text: Any) -> Tensor:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except (binascii.Error, TypeError, ValueError):
        raise HttpError(400, f'input {spec.name} is not base64: send {{"b64": "…"}}') from None


def _to_strings(value: Any) -> Tensor:
    array = np.array(value, dtype=np.object_)
    items: list[Any] = array.ravel().tolist()
    wrong_items = [item for item in items if not isinstance(item, str)]
    if wrong_items:
        raise HttpError(
            400, f"the value {quote(wrong_items[0])} is not text: send strings, in lists of the same length"
        )
    return array


def _to_numbers(spec: InputSpec, value: Any) -> Tensor:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        raise HttpError(400, f"input {spec.name} has lists of different lengths: send {spec}") from None
    are_integers = array.dtype.kind in "iu" and spec.dtype.kind in "iu"
    if array.dtype.kind not in "biuf" or not (are_integers or np.can_cast(array.dtype, spec.dtype, "same_kind")):
        raise HttpError(400, f"input {spec.name} has values of type {_describe_type(array)}: send {spec}")
    converted = array.astype(spec.dtype)
    if spec.dtype.kind in "iu" and not np.array_equal(converted, array):
        raise HttpError(400, f"input {spec.name} has values out of range: send {spec}")
    return np.ascontiguousarray(converted) if converted.ndim else converted


def _describe_type(array: Tensor) -> str:
    return {"U": "text", "O": "object", "f": "decimal", "b": "bool"}.get(array.dtype.kind, array.dtype.name)


def _add_dimension(array: Tensor, shape: tuple[int | None, ...]) -> Tensor:
    """Convert one row to a list of rows, or a list of single values to rows with one value."""
    if array.ndim != len(shape) - 1:
        return array
    return array[..., np.newaxis] if shape[-1] == 1 else array[np.newaxis]
