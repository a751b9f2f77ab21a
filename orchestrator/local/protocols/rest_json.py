"""REST JSON, which botocore calls "rest-json", for SageMaker Runtime. The method and the address determine the
operation. The members are in the address, the headers and a JSON object in the body. If one member is the payload, the
body is its value.
"""

import json
from collections.abc import Mapping
from typing import Any

from botocore.model import OperationModel, StructureShape
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import rest
from microjobs_orchestrator.local.protocols.aws_json import format_object, parse_object
from microjobs_orchestrator.local.protocols.responses import HttpResponse
from microjobs_orchestrator.local.protocols.rest_routes import RestErrorCodes, find_route
from microjobs_orchestrator.local.protocols.results import OperationResult

CONTENT_TYPE = "application/json"
UNKNOWN_OPERATION = ("UnknownOperationException", 404)

ERROR_CODES = RestErrorCodes(
    unknown_address=UNKNOWN_OPERATION,
    missing_parameter=("ValidationException", 400),
    malformed_address=("SerializationException", 400),
    malformed_value=("SerializationException", 400),
    unknown_parameter=("ValidationException", 400),
)


def find_operation(service: str, request: Request) -> str:
    return find_route(service, request, ERROR_CODES).operation.name


def parse(operation: OperationModel, request: Request) -> dict[str, Any]:
    return rest.parse_members(operation, request, ERROR_CODES, lambda shape, body: parse_object(shape.name, body))


def format_result(operation: OperationModel, result: OperationResult, _: Request) -> HttpResponse:
    return rest.format_result(operation, result, CONTENT_TYPE, _format_document)


def _format_document(shape: StructureShape, members: Mapping[str, Any], _: str) -> bytes:
    return format_object(shape, members).encode()


def format_error(error: ServiceError, _: Request) -> Response:
    """Format an error. If the error has members, they replace the code and the message in the body."""
    content = json.dumps(dict(error.members) or {"__type": error.code, "message": error.message})
    return Response(content, error.status, {"x-amzn-ErrorType": error.code}, content_type=CONTENT_TYPE)
