"""Event streams against botocore, which decodes and parses them."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.eventstream import EventStream, EventStreamBuffer
from botocore.exceptions import EventStreamError
from botocore.model import OperationModel, ServiceModel
from botocore.parsers import create_parser
from werkzeug import Request
from werkzeug.test import EnvironBuilder

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import event_stream, rest_json, rest_xml
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.protocols.event_stream import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, encode_message
from microjobs_orchestrator.local.protocols.http import REQUEST_ID
from microjobs_orchestrator.local.protocols.models import operation_model
from microjobs_orchestrator.local.protocols.results import ResultError

TIME = datetime(2026, 1, 31, 23, 59, 59, 250_000, UTC)

Event = tuple[str, Mapping[str, Any]]

SHAPES: dict[str, Any] = {
    "Output": {"type": "structure", "members": {"events": {"shape": "Events"}}, "payload": "events"},
    "Events": {
        "type": "structure",
        "eventstream": True,
        "members": {"typed": {"shape": "Typed"}, "text": {"shape": "Text"}, "document": {"shape": "Document"}},
    },
    "Typed": {
        "type": "structure",
        "event": True,
        "members": {
            name: {"shape": name, "eventheader": True}
            for name in ("boolean", "integer", "long", "string", "blob", "timestamp")
        },
    },
    "Text": {"type": "structure", "event": True, "members": {"content": {"shape": "string", "eventpayload": True}}},
    "Document": {
        "type": "structure",
        "event": True,
        "members": {
            "kind": {"shape": "string", "eventheader": True},
            "inner": {"shape": "Inner", "eventpayload": True},
        },
    },
    "Inner": {"type": "structure", "members": {"name": {"shape": "string"}, "size": {"shape": "integer"}}},
    **{name: {"type": name} for name in ("boolean", "integer", "long", "string", "blob", "timestamp")},
}
"""A service with every type of header, which no service of AWS has in one stream."""


def toy(protocol: str) -> OperationModel:
    operation = {"name": "Watch", "http": {"method": "POST", "requestUri": "/"}, "output": {"shape": "Output"}}
    metadata = {"protocol": protocol, "endpointPrefix": "toy", "serviceId": "toy"}
    return ServiceModel({"metadata": metadata, "operations": {"Watch": operation}, "shapes": SHAPES}).operation_model(
        "Watch"
    )


class Raw:
    """The body of a response, as urllib3 gives it to botocore."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks

    def stream(self) -> Iterator[bytes]:
        return self._blocks


def read(operation: OperationModel, events: Iterator[Event] | list[Event]) -> Iterator[dict[str, Any]]:
    """Yield the events that a client reads."""
    protocol = operation.service_model.metadata["protocol"]
    module = rest_json if protocol == "rest-json" else rest_xml
    request = Request({**EnvironBuilder("/").get_environ(), REQUEST_ID: "id"})
    response = module.format_answer(operation, Answer(events=events), request)
    assert response.headers["Content-Type"] == event_stream.CONTENT_TYPE
    parser: Any = create_parser(protocol)
    stream: Any = operation.get_event_stream_output()
    yield from EventStream(Raw(iter(response.response)), stream, parser._event_stream_parser, operation.name)


def test_endpoint_streams_parts_of_its_response() -> None:
    operation = operation_model("sagemaker-runtime", "InvokeEndpointWithResponseStream")
    parts: list[Event] = [("PayloadPart", {"Bytes": bytes([number] * number)}) for number in range(4)]
    assert list(read(operation, parts)) == [{name: dict(members)} for name, members in parts]


@pytest.mark.parametrize("protocol", ["rest-json", "rest-xml"])
def test_events_have_headers_of_each_type_and_payloads_of_each_kind(protocol: str) -> None:
    typed = {"boolean": False, "integer": -5, "long": 1 << 40, "string": "größe", "blob": b"\x00", "timestamp": TIME}
    events: list[Event] = [
        ("typed", typed),
        ("typed", {"boolean": True, "string": None}),
        ("text", {"content": "a & b"}),
        ("document", {"kind": "k", "inner": {"name": "n", "size": 3}}),
    ]
    received = list(read(toy(protocol), events))
    assert received == [
        events[0:1] and {"typed": typed},
        {"typed": {"boolean": True}},
        *({name: dict(members)} for name, members in events[2:]),
    ]


def test_events_are_sent_as_they_happen() -> None:
    consumed: list[int] = []

    def produce() -> Iterator[Event]:
        for number in range(3):
            consumed.append(number)
            yield "PayloadPart", {"Bytes": b"x"}

    operation = operation_model("sagemaker-runtime", "InvokeEndpointWithResponseStream")
    received = read(operation, produce())
    next(received)
    assert consumed == [0]


def failing(error: ServiceError) -> Iterator[Event]:
    yield "PayloadPart", {"Bytes": b"first"}
    raise error


@pytest.mark.parametrize(
    "error",
    [
        ServiceError("ModelStreamError", "it broke", members={"ErrorCode": "ModelInvocationTimeExceeded"}),
        ServiceError("InternalStreamFailure", "it broke"),
        ServiceError("Unmodelled", "it broke"),
    ],
)
def test_error_ends_the_stream(error: ServiceError) -> None:
    received = read(operation_model("sagemaker-runtime", "InvokeEndpointWithResponseStream"), failing(error))
    assert next(received) == {"PayloadPart": {"Bytes": b"first"}}
    with pytest.raises(EventStreamError) as caught:
        next(received)
    assert caught.value.response["Error"] == {"Code": error.code, "Message": "it broke"}


@pytest.mark.parametrize("event", [("Nonsense", {}), ("PayloadPart", {"Nonsense": 1})])
def test_unknown_event_or_member_is_a_bug(event: Event) -> None:
    with pytest.raises(ResultError, match="Nonsense"):
        list(read(operation_model("sagemaker-runtime", "InvokeEndpointWithResponseStream"), [event]))


@pytest.mark.parametrize("size", [0, 1, MAX_PAYLOAD_BYTES])
def test_message_of_each_size_is_decoded(size: int) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(encode_message({}, bytes(size)))
    (message,) = buffer
    assert len(message.payload) == size


@pytest.mark.parametrize(
    ("headers", "payload"), [({"a": bytes(MAX_HEADER_BYTES)}, b""), ({}, bytes(MAX_PAYLOAD_BYTES + 1))]
)
def test_message_that_clients_refuse_raises(headers: dict[str, bytes], payload: bytes) -> None:
    with pytest.raises(ValueError, match="the limits are 131072 and 25165824"):
        encode_message(headers, payload)
