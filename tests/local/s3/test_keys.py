"""Tests for names of buckets, keys and S3 URIs."""

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.s3.keys import get_relative_path, is_bucket_name, parse_uri


@pytest.mark.parametrize("name", ["abc", "sagemaker-us-east-1-000000000000", "a.b-c", "0" * 63])
def test_valid_bucket_names_are_accepted(name: str) -> None:
    assert is_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "0" * 64,
        "Abc",
        "a_b",
        "-abc",
        "abc-",
        "a..b",
        "..",
        "../x",
        "a/b",
        "192.168.5.4",
        "xn--abc",
        "abc--x-s3",
    ],
)
def test_invalid_bucket_names_are_rejected(name: str) -> None:
    assert not is_bucket_name(name)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://abc", ("abc", "")),
        ("s3://abc/", ("abc", "")),
        ("s3://abc/x/y", ("abc", "x/y")),
        ("s3://abc//x", ("abc", "/x")),
    ],
)
def test_uri_is_parsed_into_bucket_and_prefix(uri: str, expected: tuple[str, str]) -> None:
    assert parse_uri(uri) == expected


@pytest.mark.parametrize("uri", ["", "abc/x", "http://abc/x", "s3:/abc", "s3://", "s3://A/x", "s3://../x"])
def test_invalid_uri_raises(uri: str) -> None:
    with pytest.raises(ServiceError, match="s3://bucket/prefix") as raised:
        parse_uri(uri)
    assert raised.value.code == "ValidationException"


@pytest.mark.parametrize(
    ("key", "code", "reason"),
    [
        ("", "InvalidArgument", "empty"),
        ("/", "InvalidArgument", "slash"),
        ("/a", "InvalidArgument", "slash"),
        ("a//b", "InvalidArgument", "two slashes"),
        ("a//", "InvalidArgument", "two slashes"),
        ("a/../b", "InvalidArgument", r"'\.\.'"),
        ("./a", "InvalidArgument", r"'\.'"),
        ("a/..", "InvalidArgument", r"'\.\.'"),
        ("a\0b", "InvalidArgument", "NUL"),
        ("a\ud800", "InvalidArgument", "UTF-8"),
        ("é" * 128, "KeyTooLongError", "255 bytes"),
        ("a/" * 512 + "b", "KeyTooLongError", "1024 bytes"),
    ],
)
def test_keys_that_cannot_be_paths_raise_with_the_reason(key: str, code: str, reason: str) -> None:
    with pytest.raises(ServiceError, match=reason) as raised:
        get_relative_path(key)
    assert (raised.value.code, raised.value.status) == (code, 400)
