"""Addresses and members of REST requests, and REST results."""

import pytest
from botocore.model import Shape
from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import rest_xml
from microjobs_orchestrator.local.protocols.http import HEADERS, move_bucket_to_path
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.protocols.text import parse_text


def make_request(target: str, host: str = "localhost", method: str = "GET") -> Request:
    return Request({"REQUEST_METHOD": method, "REQUEST_URI": target, "HTTP_HOST": host, "wsgi.url_scheme": "http"})


@pytest.mark.parametrize(
    ("target", "host", "operation", "expected"),
    [
        ("/abc/x/y", "127.0.0.1:80", "GetObject", ("abc", "x/y")),
        ("/abc/", "localhost", "ListObjects", ("abc",)),
        ("/abc", "localhost", "ListObjects", ("abc",)),
        ("/", "localhost", "ListBuckets", ()),
        ("http://localhost:80/abc/a://b", "localhost:80", "GetObject", ("abc", "a://b")),
        ("/x/y", "abc.localhost:80", "GetObject", ("abc", "x/y")),
        ("/x/y", "abc.s3.localhost", "GetObject", ("abc", "x/y")),
        ("/", "abc.localhost", "ListObjects", ("abc",)),
        ("//x", "abc.localhost", "GetObject", ("abc", "/x")),
        ("/abc/x", "s3.localhost", "GetObject", ("abc", "x")),
        ("/abc/x%2Fy%252F%0A", "[::1]:80", "GetObject", ("abc", "x/y%2F\n")),
    ],
)
def test_bucket_and_key_are_found_in_an_address(
    target: str, host: str, operation: str, expected: tuple[str, ...]
) -> None:
    request = make_request(target, host)
    move_bucket_to_path(request)
    assert rest_xml.find_operation("s3", request) == operation
    members = rest_xml.parse(load_operation_model("s3", operation), request)
    assert tuple(members[name] for name in ("Bucket", "Key") if name in members) == expected


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/%c3", "InvalidURI"),
        ("//x", "MethodNotAllowed"),
        ("/a?uploads&prefix=a&prefix=b", "InvalidArgument"),
        ("/a?uploads&uploads", "InvalidArgument"),
        ("/a?uploads&max-uploads=1_0", "InvalidArgument"),
        ("/a?uploads&unknown=1", "NotImplemented"),
        ("/a?uploads&x-unknown=1", "NotImplemented"),
    ],
)
def test_malformed_address_is_refused(target: str, code: str) -> None:
    request = make_request(target)
    with pytest.raises(ServiceError) as caught:
        rest_xml.parse(load_operation_model("s3", rest_xml.find_operation("s3", request)), request)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("type_name", "text", "value"),
    [
        ("integer", "-12", -12),
        ("long", "9" * 18, 10**18 - 1),
        ("double", "1e3", 1000.0),
        ("boolean", "TRUE", True),
        ("boolean", "false", False),
        ("timestamp", "Sat, 31 Jan 2026 23:59:59 GMT", 1769903999.0),
        ("timestamp", "2026-01-31T23:59:59", 1769903999.0),
        ("timestamp", "2026-02-01T00:59:59+01:00", 1769903999.0),
        ("string", "1", "1"),
    ],
)
def test_text_is_parsed_by_the_type_of_its_shape(type_name: str, text: str, value: object) -> None:
    assert parse_text(Shape("S", {"type": type_name}), text) == value


@pytest.mark.parametrize(
    ("type_name", "text"),
    [
        *(("integer", text) for text in ("", "1_0", "+1", " 1", "1.0", "9" * 19, "\u0661")),
        *(("boolean", text) for text in ("", "1", "yes")),
        *(("double", text) for text in ("nan", "inf", "1e999", "x")),
        *(("timestamp", text) for text in ("", "soon", "2026")),
    ],
)
def test_text_of_another_type_raises(type_name: str, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the message contains only the text
        parse_text(Shape("S", {"type": type_name}), text)


def test_operation_with_most_required_headers_is_chosen() -> None:
    put_request = make_request("/b/k", method="PUT")
    assert rest_xml.find_operation("s3", put_request) == "PutObject"
    copy_request = Request({**put_request.environ, HEADERS: {"x-amz-copy-source": "b/other"}})
    assert rest_xml.find_operation("s3", copy_request) == "CopyObject"


@pytest.mark.parametrize("value", ["a\r\nX-Injected: b", "a\nb", "a\r"])
def test_result_with_a_header_of_several_lines_raises(value: str) -> None:
    with pytest.raises(ValueError, match="several lines"):
        rest_xml.format_result(
            load_operation_model("s3", "HeadObject"), OperationResult({"ContentType": value}), make_request("/b/k")
        )
