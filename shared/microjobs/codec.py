"""Encoding of values that hosts exchange. Unlike pickle, decoding runs no code that the sender chose.

Supported values are None, numbers, strings, lists, tuples, dicts, numeric arrays, and the dataclasses that both sides
pass to `Codec`. The encoded form is JSON, followed by the bytes of the arrays. Needs numpy.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

JSON_SIZE = struct.Struct(">Q")
ARRAY_KINDS = "biuf"
"""Booleans, integers and floating-point numbers, as numpy abbreviates them."""


class Codec:
    """Encodes and decodes values.

    Args:
        types: the dataclasses that values may contain.
    """

    def __init__(self, types: Iterable[type]) -> None:
        self._types = {type_.__name__: type_ for type_ in types}

    def encode(self, value: object) -> bytes:
        """Return the value as bytes.

        Raises:
            TypeError: the value contains an object of an unsupported type.
        """
        arrays: list[NDArray[Any]] = []
        text = json.dumps(self._to_json(value, arrays)).encode()
        return b"".join([JSON_SIZE.pack(len(text)), text, *(array.tobytes() for array in arrays)])

    def decode(self, content: bytes) -> Any:
        """Return the value that `encode` encoded.

        Raises:
            ValueError: `encode` cannot have returned this content.
        """
        try:
            (size,) = JSON_SIZE.unpack_from(content)
            end = JSON_SIZE.size + size
            return self._from_json(json.loads(content[JSON_SIZE.size : end]), _Buffers(memoryview(content)[end:]))
        except (struct.error, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise ValueError(f"not an encoded value: {error!r}") from error

    def _to_json(self, value: object, arrays: list[NDArray[Any]]) -> Any:
        match value:
            case None | bool() | int() | float() | str():
                return value
            case list():
                return [self._to_json(item, arrays) for item in value]
            case tuple():
                return {"tuple": [self._to_json(item, arrays) for item in value]}
            case dict():
                return {"dict": [[self._to_json(item, arrays) for item in pair] for pair in value.items()]}
            case np.ndarray() if value.dtype.kind in ARRAY_KINDS:
                arrays.append(value)
                return {"array": [value.dtype.str, value.shape]}
        if self._types.get(type(value).__name__) is not type(value):
            raise TypeError(f"a {type(value).__name__} cannot be sent to another host: pass its class to run_on_hosts")
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]  # type: ignore[arg-type]
        return {"object": [type(value).__name__, *(self._to_json(field, arrays) for field in fields)]}

    def _from_json(self, value: Any, buffers: "_Buffers") -> Any:
        if isinstance(value, list):
            return [self._from_json(item, buffers) for item in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "array":
            return buffers.take_array(*content)
        items = [self._from_json(item, buffers) for item in content]
        match kind:
            case "tuple":
                return tuple(items)
            case "dict":
                return dict(items)
            case "object":
                return self._types[items[0]](*items[1:])
        raise ValueError(f"unknown kind {kind!r}")


class _Buffers:
    """The bytes of arrays, one after the other. Messages may be large, so the arrays are views of them."""

    def __init__(self, content: memoryview) -> None:
        self._content = content

    def take_array(self, dtype_name: str, shape: list[int]) -> NDArray[Any]:
        dtype = np.dtype(dtype_name)
        if dtype.kind not in ARRAY_KINDS or min(shape, default=0) < 0:
            raise ValueError(f"an array cannot have type {dtype_name!r} and shape {shape}")
        size = math.prod(shape) * dtype.itemsize
        if size > len(self._content):
            raise ValueError(f"an array of {size} bytes is cut off after {len(self._content)}")
        array = np.frombuffer(self._content[:size], dtype).reshape(shape)
        self._content = self._content[size:]
        return array
