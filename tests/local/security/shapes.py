"""Strategies for valid and invalid values of botocore's shapes."""

import copy
import re
from datetime import UTC, datetime
from functools import cache
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape
from hypothesis import strategies as st

DEPTH = 4
"""Number of levels at which structures may have optional members. Deeper structures have only required members."""

URIS = ["s3://fuzz/in", "s3://fuzz/in/", "s3://fuzz/model.tar.gz", "s3://fuzz/out", "s3://absent/x", "s3://fuzz"]
UNUSUAL_TEXTS = [
    *("", ".", "..", "../..", "/", "//", "/etc/passwd", "a/../../b", "%2e%2e%2f", "\0", "a\0b", "\r\n", "a\nb"),
    *(
        "\ud800",
        "\U0001f600",
        "\uff41\uff44min",
        "\ufb01",
        "e\u0301",
        "\u0130",
        "ß",
        "\u202e",
        "\ufeff",
        "\xb2",
        "\uff11",
        "nul",
        "CON",
        "~",
        "$(id)",
    ),
    *("x" * 300, "x" * 5000, "é" * 300, "{", "<a>", "'; --", "*", "?", "s3://", "s3://fuzz/../x", "-1", "1e999", "NaN"),
]
UNUSUAL_NUMBERS = [
    0,
    -1,
    1 << 31,
    -(1 << 31),
    1 << 63,
    1 << 64,
    10**30,
    10**400,
    1e308,
    float("inf"),
    float("nan"),
    -0.0,
]

unusual_texts = st.sampled_from(UNUSUAL_TEXTS) | st.text(max_size=20)
unusual_numbers = st.sampled_from(UNUSUAL_NUMBERS) | st.integers() | st.floats()


NESTED_LISTS_PLACEHOLDER = "@deep {}@"
"""Placeholder for nested lists, with the number of levels. It is replaced after the encoding, because Python's JSON
encoder fails for many levels."""

wrong_values = st.one_of(
    st.none(),
    st.booleans(),
    unusual_numbers,
    unusual_texts,
    st.sampled_from([[], {}, [[]], [None], {"": ""}, {"A": None}, {"\ud800": 1}, ["x"] * 1001]).map(copy.deepcopy),
    st.sampled_from([20, 90, 400, 900, 990, 5000, 100_000]).map(NESTED_LISTS_PLACEHOLDER.format),
)
"""Values with a wrong type for almost all members."""


@cache
def valid_values(shape: Shape, depth: int = DEPTH) -> st.SearchStrategy[Any]:
    """Return a strategy for the values that the model allows. Times are datetime objects, blobs are bytes, and other
    values have JSON's types."""
    match shape:
        case StructureShape():
            return _structures(shape, depth)
        case ListShape():
            return st.lists(
                valid_values(shape.member, depth - 1), min_size=_get_minimum(shape), max_size=_get_maximum(shape, 3)
            )
        case MapShape():
            keys, values = valid_values(shape.key, depth - 1), valid_values(shape.value, depth - 1)
            return st.dictionaries(keys, values, min_size=_get_minimum(shape), max_size=_get_maximum(shape, 3))
    return _scalars(shape)


def _structures(shape: StructureShape, depth: int) -> st.SearchStrategy[Any]:
    if shape.is_tagged_union:
        return st.sampled_from(sorted(shape.members)).flatmap(
            lambda name: valid_values(shape.members[name], depth - 1).map(lambda value: {name: value})
        )
    members = {name: _defer(member, depth) for name, member in shape.members.items()}
    required_members = {name: members.pop(name) for name in shape.required_members}
    if depth <= 0 or not members:
        return st.fixed_dictionaries(required_members)
    optional_names = st.lists(st.sampled_from(sorted(members)), unique=True, max_size=4)
    return st.builds(
        lambda required, optional: {**required, **optional},
        st.fixed_dictionaries(required_members),
        optional_names.flatmap(lambda names: st.fixed_dictionaries({name: members[name] for name in names})),
    )


def _defer(member: Shape, depth: int) -> st.SearchStrategy[Any]:
    """Create the strategy of a member only when it is needed. Some shapes contain themselves, so the creation of all
    strategies in advance would never end."""
    return st.deferred(lambda: valid_values(member, depth - 1))


def _scalars(shape: Shape) -> st.SearchStrategy[Any]:
    type_name = shape.type_name
    if type_name in ("integer", "long"):
        minimum = shape.metadata.get("min", 0)
        return st.integers(minimum, max(minimum, shape.metadata.get("max", minimum + 10)))
    if type_name in ("float", "double"):
        return st.floats(shape.metadata.get("min", 0), shape.metadata.get("max", 10), allow_subnormal=False)
    if type_name == "timestamp":
        return st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
    if type_name == "boolean":
        return st.booleans()
    return st.binary(max_size=50) if type_name == "blob" else _texts(shape)


def _texts(shape: Shape) -> st.SearchStrategy[str]:
    if allowed := shape.metadata.get("enum"):
        return st.sampled_from(allowed)
    minimum, maximum = _get_minimum(shape), min(_get_maximum(shape, 60), 60)
    plain_texts = st.text("abcXYZ019-", min_size=minimum, max_size=max(minimum, maximum))
    if "Uri" in shape.name or "Url" in shape.name or "S3" in shape.name:
        plain_texts = st.sampled_from(URIS)
    pattern = shape.metadata.get("pattern", "")
    try:
        re.compile(pattern)
    except re.error:  # the pattern has Java's syntax, which Python does not support
        pattern = ""
    matching = (
        st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True) if pattern not in ("", ".*") else plain_texts
    )
    return plain_texts | matching.filter(lambda text: minimum <= len(text))


def _get_minimum(shape: Shape) -> int:
    return int(shape.metadata.get("min", 0))


def _get_maximum(shape: Shape, limit: int) -> int:
    return max(_get_minimum(shape), min(int(shape.metadata.get("max", limit)), limit))
