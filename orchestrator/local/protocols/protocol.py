"""Interface of the protocols: one module each, with these functions."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal, Protocol, cast

from botocore.model import OperationModel
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import aws_json, query, rest_json, rest_xml
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.protocols.models import service_model

ErrorStyle = Literal["json", "query", "s3"]
"""Families of protocols. Each has its own error codes on AWS."""


class WireProtocol(Protocol):
    """How the requests, results and errors of a service are encoded in HTTP."""

    UNKNOWN_OPERATION: tuple[str, int]
    """Error code and HTTP status for an operation that the service does not have."""

    def find_operation(self, service: str, request: Request, /) -> str:
        """Return the name of the operation; empty if the request does not name one.

        Raises:
            ServiceError: no operation has the request's address.
        """

    def parse(self, operation: OperationModel, request: Request, /) -> dict[str, Any]:
        """Return the members of a request in JSON's types: times in seconds since 1970, blobs in base64; a blob
        that is the whole body is bytes.

        Raises:
            ServiceError: the request is not in this protocol.
        """

    def format_answer(self, operation: OperationModel, answer: Answer, request: Request, /) -> Response:
        """Format a handler's result.

        Raises:
            ResultError: the result has a member that the operation's output does not have.
        """

    def format_error(self, error: ServiceError, request: Request, /) -> Response: ...


MODULES: Mapping[str, ModuleType] = {
    "json": aws_json,
    "rest-json": rest_json,
    "smithy-rpc-v2-cbor": aws_json,
    "query": query,
    "ec2": query,
    "rest-xml": rest_xml,
}
"""Modules by botocore's names of the protocols. Another emulator answers the services that use CBOR or EC2; for them, a
module only formats errors."""

STYLES: Mapping[ModuleType, ErrorStyle] = {aws_json: "json", rest_json: "json", query: "query", rest_xml: "s3"}


def get_error_style(protocol: WireProtocol) -> ErrorStyle:
    return STYLES[cast("ModuleType", protocol)]


def get_protocol(name: str) -> WireProtocol:
    """Return a protocol by botocore's name."""
    return cast("WireProtocol", MODULES[name])


def get_service_protocol(service: str) -> WireProtocol:
    return get_protocol(str(service_model(service).metadata["protocol"]))


def guess_protocol(request: Request) -> WireProtocol:
    """Return the protocol of a request's probable service, for errors before the service is known."""
    content_type = request.headers.get("Content-Type", "")
    if content_type.startswith("application/x-www-form-urlencoded"):
        return get_protocol("query")
    if request.path.startswith("/endpoints/"):
        return get_protocol("rest-json")
    is_json = content_type.startswith(("application/json", "application/x-amz-json", "application/cbor"))
    return get_protocol("json" if is_json else "rest-xml")
