"""Details of the formats that a response does not show: the fast parser, and limits."""

import numpy as np
import pytest

from microjobs.hosting import formats
from microjobs.hosting.formats.json_rows import parse_plain_rows, to_array
from microjobs.hosting.formats.rows import to_valid_rows
from microjobs.hosting.responses import HttpError, quote


@pytest.mark.parametrize(
    ("body", "member", "expected"),
    [
        (b"[[1, 2], [3, 4], [5, 6]]", None, [[1, 2], [3, 4], [5, 6]]),
        (b"[[1.5]]", None, [[1.5]]),
        (b'{"instances": [[1, 2, 3]]}', "instances", [[1, 2, 3]]),
        (b'{"instances": [[1]], "signature_name": "raw"}', "instances", None),
        (b'{"inputs": [[1]]}', "instances", None),
        (b"[[1, 2], [3]]", None, None),
        (b"[[[1, 2]]]", None, None),
        (b'[["1"]]', None, None),
        (b"[[1]", None, None),
    ],
)
def test_only_plain_rows_are_parsed_fast(body: bytes, member: str | None, expected: list[list[float]] | None) -> None:
    rows = parse_plain_rows(body, member)
    assert (None if rows is None else rows.tolist()) == expected


def test_large_body_of_numbers_is_accepted() -> None:
    rows = [[1.25, 2.5]] * 20_000
    assert to_array(rows, b"[" + b"[1.25,2.5]," * 20_000 + b"]").shape == (20_000, 2)


def test_rows_of_many_features_are_accepted() -> None:
    assert to_valid_rows(np.zeros((2, 1000)), 1000).shape == (2, 1000)


def test_flat_array_is_one_value_per_row_for_one_feature() -> None:
    assert to_valid_rows(np.zeros(3), 1).shape == (3, 1)


@pytest.mark.parametrize("media_type", ["text/csv", "application/json", "application/jsonlines"])
def test_body_that_is_not_utf_8_gets_status_400(media_type: str) -> None:
    with pytest.raises(HttpError) as caught:
        formats.decode(b"[1,2,\xff]", media_type)
    assert caught.value.status == 400


def test_quoted_values_are_short() -> None:
    assert quote("x" * 58) == repr("x" * 58)
    assert quote("x" * 59) == repr("x" * 59)[:60] + "…"
