"""The fast parser of header fields, compared with the slower parser, which explains errors in the fields."""

import io

import pytest

from microjobs_orchestrator.local.gateway.header_fields import parse_headers, read_headers

HOST = b"Host: localhost\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        HOST,
        b"hOST:localhost\r\nX-Amz-Meta-a_b: \t 1 2 \t\r\n",
        HOST + b"Empty:\r\nColons: a:b: c\r\n",
        HOST + b"Latin: \xe9\xff\r\nTab: a\tb\r\n",
        HOST + b"!#$%&'*+.^_`|~: 1\r\n",
    ],
)
def test_both_parsers_return_the_same_headers(fields: bytes) -> None:
    headers: dict[bytes, bytes] = {}
    read_headers(io.BytesIO(fields + b"\r\n").readline, headers)
    assert parse_headers(fields + b"\r\n") == headers


@pytest.mark.parametrize(
    "fields",
    [
        b"Host : localhost\r\n",
        b" Host: localhost\r\n",
        HOST + b" folded\r\n",
        HOST + b"no colon\r\n",
        HOST + b": no name\r\n",
        HOST + b"A: 1\nB: 2\r\n",
        HOST + b"A: 1\rB: 2\r\n",
        HOST + b"A: \x001\r\n",
        HOST + b"\xe9: 1\r\n",
        HOST + b"host: other\r\n",
    ],
)
def test_fast_parser_returns_none_for_malformed_and_repeated_fields(fields: bytes) -> None:
    assert parse_headers(fields + b"\r\n") is None
