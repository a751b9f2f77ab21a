"""Requests in CBOR. Most of them are malformed, and no client sends them."""

import pytest
from werkzeug import Request
from werkzeug.test import EnvironBuilder

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import rpc_cbor
from microjobs_orchestrator.local.protocols.models import load_operation_model

LIST_METRICS = load_operation_model("cloudwatch", "ListMetrics")


def make_request(body: bytes) -> Request:
    return Request(EnvironBuilder("/", method="POST", data=body).get_environ())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x80", id="a list"),
        pytest.param(b"\xa1\x61a", id="no value"),
        pytest.param(b"\xa0\xa0", id="two maps"),
        pytest.param(b"\xa1\x01\x01", id="the key is a number"),
        pytest.param(b"\xa1\x00\x01", id="the key is 0"),
        pytest.param(b"\xa1\x40\x01", id="the key is an empty byte string"),
        pytest.param(b"\xa1\x80\x01", id="the key is a list"),
        pytest.param(b"\xa1\x61a\xfb\x7f\xf0\0\0\0\0\0\0", id="infinity"),
        pytest.param(b"\xa1\x61a\xf9\x7e\0", id="not a number"),
        pytest.param(b"\xa1\x61a\x7b" + b"\x7f" * 8, id="a text of 9 exabytes"),
        pytest.param(b"\xa1\x61a\x9b" + b"\xff" * 8, id="a list of 2^64 - 1 items"),
        pytest.param(b"\xa1\x61a\x61\xff", id="no UTF-8"),
        pytest.param(b"\xa1\x61a\xc2\x41\x01", id="an unknown tag"),
        pytest.param(b"\xa1\x61a\xc1\x61a", id="a time that is a text"),
        pytest.param(b"\xa1\x61a" + b"\x81" * 101 + b"\x01", id="101 levels"),
        pytest.param(b"\xa1\x61a" + b"\x81" * 100_000, id="100,000 levels"),
        pytest.param(b"\xa1\x61a" + b"\xc1" * 100_000, id="100,000 tags"),
        pytest.param(b"\xbf", id="an endless map"),
        pytest.param(b"\xa1\x61a\x5f\x61", id="an endless byte string"),
        pytest.param(b"\xff", id="a break"),
    ],
)
def test_body_that_is_no_valid_map_is_refused(body: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        rpc_cbor.parse(LIST_METRICS, make_request(body))
    assert caught.value.code == "SerializationException"
    assert len(caught.value.message) < 300


def test_null_members_are_dropped_and_bytes_become_base64() -> None:
    assert rpc_cbor.parse(LIST_METRICS, make_request(b"\xa2\x61a\xf6\x61b\x42\0\xff")) == {"b": "AP8="}


def test_empty_body_has_no_members() -> None:
    assert rpc_cbor.parse(LIST_METRICS, make_request(b"")) == {}
