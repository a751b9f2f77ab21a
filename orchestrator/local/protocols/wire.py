"""What the protocols have in common, and which a service speaks."""

from collections.abc import Mapping
from typing import Any, Protocol

from botocore.model import OperationModel
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import aws_json, query
from microjobs_orchestrator.local.protocols.models import service_model


class Wire(Protocol):
    """A protocol that has its operation and its members in the request's body: a module a protocol."""

    def operation_name(self, request: Request) -> str:
        """The operation that a request asks for; empty if it does not say."""

    def parse(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        """A request's members, as JSON would have them.

        Raises:
            ServiceError: the body is none of this protocol.
        """

    def answer(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Response:
        """A handler's result on the wire.

        Raises:
            ResultError: the handler gave what the operation's answer does not have; its mistake.
        """

    def failure(self, error: ServiceError, request_id: str) -> Response:
        """An error on the wire."""


def wire_of(service: str) -> Wire:
    """The protocol of a service that has one of these."""
    return query if service_model(service).metadata["protocol"] == "query" else aws_json
