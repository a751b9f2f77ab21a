"""Tests of the part of JSONPath that the filters of transform jobs support."""

from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.transform.jsonpath import MissingValueError, Path, parse

RECORD = {"id": 7, "features": [1, 2, 3, 4], "deep": {"a": {"x": 1}, "b": {"x": 2}}, "a-b": 0}


def parse_path(text: str, content_type: str = "application/json") -> Path:
    return parse(text, "OutputFilter", content_type)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$", RECORD),
        ("$.id", 7),
        ("$['id']", 7),
        ("$.a-b", 0),
        ("$['id','a-b']", {"id": 7, "a-b": 0}),
        ("$.deep.['a', 'b']", {"a": {"x": 1}, "b": {"x": 2}}),
        ("$.deep.*", [{"x": 1}, {"x": 2}]),
        ("$.deep.*.x", [1, 2]),
        ("$.features[0]", 1),
        ("$.features[-1]", 4),
        ("$.features[0,2,-1]", [1, 3, 4]),
        ("$.features[1:3]", [2, 3]),
        ("$.features[1:]", [2, 3, 4]),
        ("$.features[:-1]", [1, 2, 3]),
        ("$.features[:]", [1, 2, 3, 4]),
        ("$.features[*]", [1, 2, 3, 4]),
        ("$.features[2:9]", [3, 4]),
    ],
)
def test_path_selects_values_of_the_record(text: str, expected: Any) -> None:
    assert parse_path(text).select(RECORD) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$.name", "an object with the members 'id', 'features', 'deep', 'a-b' has no member 'name'"),
        ("$['id','name']", "no member 'name'"),
        ("$.features.id", "an array has no member 'id'"),
        ("$.features[4]", "an array of 4 items has no index 4"),
        ("$.features[0,-5]", "an array of 4 items has no index -5"),
        ("$.id[0]", "a single value has no items"),
        ("$[1:]", "an object with the members 'id', 'features', 'deep', 'a-b' has no items"),
    ],
)
def test_missing_value_raises(text: str, reason: str) -> None:
    with pytest.raises(MissingValueError, match=reason):
        parse_path(text).select(RECORD)


@pytest.mark.parametrize(
    ("text", "content_type", "reason"),
    [
        (
            "$['account_id','SageMakerOutput']",
            "application/jsonlines",
            r"""Output'\]". Unexpected "_" in JsonPath. Supported operators for "application/jsonlines" are """,
        ),
        ("$.id", "text/csv", 'Unexpected "." in JsonPath. Supported operators for "text/csv" are'),
        ("$[a]", "text/csv", 'Unexpected "a" in JsonPath'),
        ("$[0:2,246:]", "text/csv", r"only single range filters of format \(eg: \[1:5\]\) are supported"),
        ("$..id", "application/json", r"'\.\.id' must be one of"),
        ("$[?(@.a)]", "application/json", 'Unexpected "\\?"'),
        ("$id", "application/json", "'id' must be one of"),
        ("$[1", "application/json", "must be one of"),
        ("features", "application/json", r"must begin with \$"),
        ("", "application/json", r"must begin with \$"),
    ],
)
def test_unsupported_path_is_refused(text: str, content_type: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        parse_path(text, content_type)
