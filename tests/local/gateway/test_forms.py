"""Tests of the parser of upload forms."""

from typing import cast

import pytest
from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.forms import MAX_FIELD_BYTES, Form
from microjobs_orchestrator.local.gateway.streams import Stream

BODY = (
    '--b\r\nContent-Disposition: form-data; name="Key"\r\n\r\n{}\r\n'
    '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\ncontent\r\n--b--\r\n'
)


class SlowStream:
    """A stream that returns one byte per read."""

    def __init__(self, body: bytes) -> None:
        self._bytes = iter(body)

    def read(self, _: int) -> bytes:
        return bytes([number]) if (number := next(self._bytes, None)) is not None else b""


def parse(value: str) -> Form:
    request = Request({"REQUEST_METHOD": "POST", "CONTENT_TYPE": "multipart/form-data; boundary=b"})
    return Form(request, cast("Stream", SlowStream(BODY.format(value).encode())))


def read_file(form: Form) -> bytes:
    return b"".join(iter(lambda: form.read(1), b""))


def test_form_that_arrives_in_single_bytes_is_parsed() -> None:
    form = parse("é€")
    assert form.fields == {"key": "é€"}
    assert read_file(form) == b"content"


def test_limit_of_the_fields_counts_bytes() -> None:
    assert parse("é" * (MAX_FIELD_BYTES // 2)).fields["key"]
    with pytest.raises(ServiceError, match="fields preceding the upload file exceed"):
        parse("é" * (MAX_FIELD_BYTES // 2) + "x")
