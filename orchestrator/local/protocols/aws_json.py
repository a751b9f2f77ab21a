"""AWS JSON 1.1, botocore's "json": SageMaker, CloudWatch Logs, ECR. The operation is in a header, the members are a
JSON object.
"""

import json
from typing import Any

from botocore.model import OperationModel
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.protocols.json_body import format_object, parse_object

CONTENT_TYPE = "application/x-amz-json-1.1"
UNKNOWN_OPERATION = ("UnknownOperationException", 404)


def find_operation(_: str, request: Request) -> str:
    """Return `CreateModel` for `SageMaker.CreateModel`."""
    return request.headers.get("X-Amz-Target", "").rpartition(".")[2]


def parse(operation: OperationModel, request: Request) -> dict[str, Any]:
    return parse_object(operation.name, request.get_data())


def format_answer(operation: OperationModel, answer: Answer, _: Request) -> Response:
    return Response(format_object(operation.output_shape, answer.members), content_type=CONTENT_TYPE)


def format_error(error: ServiceError, _: Request) -> Response:
    content = json.dumps({"__type": error.code, "message": error.message})
    return Response(content, error.status, {"x-amzn-ErrorType": error.code}, content_type=CONTENT_TYPE)
