"""Tests of the codec for values that hosts send to each other."""

import json
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from microjobs.codec import JSON_SIZE, Codec


@dataclass(frozen=True)
class Registered:
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Unregistered:
    name: str


CODEC = Codec([Registered])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [True, 1, 1.5, -0.0, float("inf"), 10**30, "text \ud800 \U0001d54f"],
        (1, (2, ()), [3]),
        {"a": {1: (2,)}, (3, 4): None},
        [Registered("x", (20, 3)), {"y": Registered("y", ())}],
    ],
)
def test_value_round_trips(value: Any) -> None:
    assert CODEC.decode(CODEC.encode(value)) == value


def test_arrays_round_trip() -> None:
    arrays = [
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0).reshape(2, 3).T,
        np.arange(5, dtype=np.int64)[::2],
        np.array([], np.float32),
        np.array(3.5),
        np.array([np.nan, -np.inf]),
    ]
    for decoded, original in zip(CODEC.decode(CODEC.encode(arrays)), arrays, strict=True):
        assert (decoded.dtype, decoded.shape) == (original.dtype, original.shape)
        np.testing.assert_array_equal(decoded, original)


@pytest.mark.parametrize("value", [Unregistered("x"), print, object(), {1}, np.array([object()]), np.array(["text"])])
def test_error_names_the_type_of_an_unsupported_value(value: object) -> None:
    with pytest.raises(TypeError, match=f"a {type(value).__name__} cannot be sent to another host"):
        CODEC.encode([value])


def make_message(content: object, buffers: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return JSON_SIZE.pack(len(text)) + text + buffers


@pytest.mark.parametrize(
    "content",
    [
        b"",
        pickle.dumps(print),
        make_message({"object": ["Unregistered", "x"]}),
        make_message({"object": ["Registered"]}),
        make_message({"array": ["|O", [1]]}, bytes(8)),
        make_message({"array": ["<f8", [2]]}, bytes(8)),
        make_message({"array": ["<f8", [-1]]}, bytes(8)),
        make_message({"array": ["<f8", [1 << 62]]}),
        make_message({"else": []}),
        make_message({}),
        JSON_SIZE.pack(100_000) + b"[" * 100_000,
    ],
)
def test_invalid_bytes_raise(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        CODEC.decode(content)
