"""Interface of the protocols. Each protocol is a module that has the functions of `WireProtocol`."""

from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any, Literal, Protocol, cast

from botocore.model import OperationModel
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import aws_json, query, rest_json, rest_xml, rpc_cbor
from microjobs_orchestrator.local.protocols.http import get_headers
from microjobs_orchestrator.local.protocols.models import load_service_model
from microjobs_orchestrator.local.protocols.responses import HttpResponse
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.protocols.rpc_cbor import PROTOCOL_HEADER

FORM_TYPE = "application/x-www-form-urlencoded"

ErrorStyle = Literal["json", "query", "s3"]
"""Families of protocols. Each has its own error codes on AWS."""


class WireProtocol(Protocol):
    """Encoding of a service's requests, results and errors in HTTP."""

    UNKNOWN_OPERATION: tuple[str, int]
    """Error code and HTTP status for an operation that the service does not have."""

    def find_operation(self, service: str, request: Request, /) -> str:
        """Return the name of the operation; empty if the request does not name one.

        Raises:
            ServiceError: no operation has the request's method and path.
        """

    def parse(self, operation: OperationModel, request: Request, /) -> dict[str, Any]:
        """Return the members of a request in JSON's types: times in seconds since 1970, blobs in base64; a blob
        that is the whole body is bytes.

        Raises:
            ServiceError: the request is not in this protocol.
        """

    def format_result(self, operation: OperationModel, result: OperationResult, request: Request, /) -> HttpResponse:
        """Format the result of an operation.

        Raises:
            ResultError: the result has a member that the operation's output does not have.
        """

    def format_error(self, error: ServiceError, request: Request, /) -> Response: ...


MODULES: Mapping[str, ModuleType] = {
    "json": aws_json,
    "rest-json": rest_json,
    "smithy-rpc-v2-cbor": rpc_cbor,
    "query": query,
    "ec2": query,
    "rest-xml": rest_xml,
}
"""Modules by botocore's names of the protocols.

Only the service EC2 uses the protocol "ec2". The server can only forward requests for EC2 to another emulator, so the
module `query` only formats errors for them."""

ERROR_STYLES: Mapping[ModuleType, ErrorStyle] = {
    aws_json: "json",
    rpc_cbor: "json",
    rest_json: "json",
    query: "query",
    rest_xml: "s3",
}


def get_error_style(protocol: WireProtocol) -> ErrorStyle:
    return ERROR_STYLES[cast("ModuleType", protocol)]


def get_protocol(name: str) -> WireProtocol:
    """Return a protocol by botocore's name."""
    return cast("WireProtocol", MODULES[name])


@cache
def get_service_protocol(service: str) -> WireProtocol:
    return get_protocol(str(load_service_model(service).metadata["protocol"]))


def find_protocol(service: str, request: Request) -> WireProtocol:
    """Return the protocol of a request. If a service, such as CloudWatch, has several, the client chooses one."""
    protocol_names = load_service_model(service).metadata.get("protocols", ())
    if len(protocol_names) < 2:
        return get_service_protocol(service)
    matches_by_protocol = {
        "smithy-rpc-v2-cbor": PROTOCOL_HEADER in request.headers,
        "json": "X-Amz-Target" in request.headers,
        "query": request.headers.get("Content-Type", "").startswith(FORM_TYPE) or "Action" in request.args,
    }
    protocol_name = next(
        (name for name, matches in matches_by_protocol.items() if matches and name in protocol_names), None
    )
    return get_protocol(protocol_name) if protocol_name else get_service_protocol(service)


def guess_protocol(request: Request) -> WireProtocol:
    """Return the protocol of a request's probable service, for errors before the service is known."""
    headers = get_headers(request)
    content_type = headers.get("content-type", "")
    if PROTOCOL_HEADER.lower() in headers:
        return get_protocol("smithy-rpc-v2-cbor")
    if content_type.startswith(FORM_TYPE):
        return get_protocol("query")
    if request.path.startswith("/endpoints/"):
        return get_protocol("rest-json")
    is_json = content_type.startswith(("application/json", "application/x-amz-json", "application/cbor"))
    return get_protocol("json" if is_json else "rest-xml")
