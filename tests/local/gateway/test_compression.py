"""Decompression of request bodies, including broken ones that no real client sends."""

import gzip
from io import BytesIO

import pytest
from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway import compression
from microjobs_orchestrator.local.gateway.compression import decompress_body
from microjobs_orchestrator.local.gateway.request_state import RequestState
from microjobs_orchestrator.local.protocols.protocol import get_protocol


def decompress(body: bytes, service: str = "cloudwatch") -> bytes:
    environ = {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": "gzip"}
    state = RequestState(Request(environ))
    state.protocol = get_protocol("json")
    state.service = service
    decompress_body(state)
    return state.request.get_data()


def test_compressed_body_is_replaced() -> None:
    assert decompress(gzip.compress(b"{}")) == b"{}"


def test_body_of_another_service_is_not_decompressed() -> None:
    body = gzip.compress(b"an input of a model")
    assert decompress(body, "sagemaker-runtime") == body


@pytest.mark.parametrize(
    "body", [b"", b"{}", gzip.compress(b"{}")[:-9], gzip.compress(b"{}")[5:]], ids=["empty", "plain", "cut", "headless"]
)
def test_body_that_is_not_valid_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        decompress(body)
    assert caught.value.code == "SerializationException"


def test_decompressed_body_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MAX_BYTES", 1000)
    with pytest.raises(ServiceError) as caught:
        decompress(gzip.compress(b"\0" * 1001))
    assert (caught.value.code, caught.value.status) == ("RequestEntityTooLarge", 413)
