"""Tests of event streams: botocore decodes and parses what the server sends."""

from collections.abc import Iterator, Mapping
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
from microjobs_orchestrator.local.protocols.event_stream import MAX_PAYLOAD_BYTES, encode_message
from microjobs_orchestrator.local.protocols.http import REQUEST_ID
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.results import OperationResult, ResultError

Event = tuple[str, Mapping[str, Any]]

SHAPES: dict[str, Any] = {
    "Output": {"type": "structure", "members": {"events": {"shape": "Events"}}, "payload": "events"},
    "Events": {"type": "structure", "eventstream": True, "members": {"document": {"shape": "Document"}}},
    "Document": {
        "type": "structure",
        "event": True,
        "members": {"name": {"shape": "string"}, "size": {"shape": "integer"}},
    },
    **{name: {"type": name} for name in ("integer", "string")},
}
"""Model of a service whose event is sent as a JSON or XML document. No AWS service that the server implements has such
an event."""


def make_operation(protocol: str) -> OperationModel:
    operation = {"name": "Watch", "http": {"method": "POST", "requestUri": "/"}, "output": {"shape": "Output"}}
    metadata = {"protocol": protocol, "endpointPrefix": "toy", "serviceId": "toy"}
    return ServiceModel({"metadata": metadata, "operations": {"Watch": operation}, "shapes": SHAPES}).operation_model(
        "Watch"
    )


class RawBody:
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
    response = module.format_result(operation, OperationResult(events=events), request)
    assert response.headers["Content-Type"] == event_stream.CONTENT_TYPE
    parser: Any = create_parser(protocol)
    stream: Any = operation.get_event_stream_output()
    yield from EventStream(RawBody(iter(response.response)), stream, parser._event_stream_parser, operation.name)


def test_payload_parts_reach_the_client() -> None:
    operation = load_operation_model("sagemaker-runtime", "InvokeEndpointWithResponseStream")
    parts: list[Event] = [("PayloadPart", {"Bytes": bytes([number] * number)}) for number in range(4)]
    assert list(read(operation, parts)) == [{name: dict(members)} for name, members in parts]


@pytest.mark.parametrize("protocol", ["rest-json", "rest-xml"])
def test_event_without_a_payload_member_is_a_document(protocol: str) -> None:
    events: list[Event] = [("document", {"name": "größe & b", "size": 3}), ("document", {"name": None, "size": 4})]
    assert list(read(make_operation(protocol), events)) == [dict(events[:1]), {"document": {"size": 4}}]


def test_event_is_sent_before_the_next_one_is_produced() -> None:
    produced_numbers: list[int] = []

    def produce() -> Iterator[Event]:
        for number in range(3):
            produced_numbers.append(number)
            yield "PayloadPart", {"Bytes": b"x"}

    operation = load_operation_model("sagemaker-runtime", "InvokeEndpointWithResponseStream")
    events = read(operation, produce())
    next(events)
    assert produced_numbers == [0]


def fail_after_one_event(error: ServiceError) -> Iterator[Event]:
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
    events = read(
        load_operation_model("sagemaker-runtime", "InvokeEndpointWithResponseStream"), fail_after_one_event(error)
    )
    assert next(events) == {"PayloadPart": {"Bytes": b"first"}}
    with pytest.raises(EventStreamError) as caught:
        next(events)
    assert caught.value.response["Error"] == {"Code": error.code, "Message": "it broke"}


@pytest.mark.parametrize("event", [("Nonsense", {}), ("PayloadPart", {"Nonsense": 1})])
def test_unknown_event_or_member_raises(event: Event) -> None:
    with pytest.raises(ResultError, match="Nonsense"):
        list(read(load_operation_model("sagemaker-runtime", "InvokeEndpointWithResponseStream"), [event]))


@pytest.mark.parametrize("size", [0, 1, MAX_PAYLOAD_BYTES])
def test_message_of_each_size_is_decoded(size: int) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(encode_message({}, bytes(size)))
    (message,) = buffer
    assert len(message.payload) == size


def test_payload_that_clients_refuse_raises() -> None:
    with pytest.raises(ValueError, match="the limit is 25165824"):
        encode_message({}, bytes(MAX_PAYLOAD_BYTES + 1))
