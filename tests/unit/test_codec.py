"""Values that travel between hosts."""

import json
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from microjobs.codec import JSON_SIZE, Codec


@dataclass(frozen=True)
class Known:
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Unknown:
    name: str


CODEC = Codec([Known])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [True, 1, 1.5, -0.0, float("inf"), 10**30, "text \ud800 \U0001d54f"],
        (1, (2, ()), [3]),
        {"a": {1: (2,)}, (3, 4): None},
        [Known("x", (20, 3)), {"y": Known("y", ())}],
    ],
)
def test_value_arrives_as_it_was(value: Any) -> None:
    assert CODEC.decode(CODEC.encode(value)) == value


def test_arrays_arrive_as_they_were() -> None:
    arrays = [
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0).reshape(2, 3).T,
        np.arange(5, dtype=np.int64)[::2],
        np.array([], np.float32),
        np.array(3.5),
        np.array([np.nan, -np.inf]),
    ]
    for found, sent in zip(CODEC.decode(CODEC.encode(arrays)), arrays, strict=True):
        assert (found.dtype, found.shape) == (sent.dtype, sent.shape)
        np.testing.assert_array_equal(found, sent)


@pytest.mark.parametrize("value", [Unknown("x"), print, object(), {1}, np.array([object()]), np.array(["text"])])
def test_value_that_cannot_travel_is_named(value: object) -> None:
    with pytest.raises(TypeError, match=f"a {type(value).__name__} cannot be sent to another host"):
        CODEC.encode([value])


def encoded(content: object, buffers: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return JSON_SIZE.pack(len(text)) + text + buffers


@pytest.mark.parametrize(
    "content",
    [
        b"",
        pickle.dumps(print),
        encoded({"object": ["Unknown", "x"]}),
        encoded({"object": ["Known"]}),
        encoded({"array": ["|O", [1]]}, bytes(8)),
        encoded({"array": ["<f8", [2]]}, bytes(8)),
        encoded({"array": ["<f8", [-1]]}, bytes(8)),
        encoded({"array": ["<f8", [1 << 62]]}),
        encoded({"else": []}),
        encoded({}),
        JSON_SIZE.pack(100_000) + b"[" * 100_000,
    ],
)
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        CODEC.decode(content)
