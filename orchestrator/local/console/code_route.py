"""Requests that created resources: pages show them as code, and send them again with changes."""

import json

from werkzeug import Response

from microjobs_orchestrator.local.console.code.clients import format_boto3, format_cli
from microjobs_orchestrator.local.console.code.requests import CreateRequests
from microjobs_orchestrator.local.console.code.sdk_v2 import format_sdk_v2
from microjobs_orchestrator.local.console.code.sdk_v2_tables import PROGRAMS
from microjobs_orchestrator.local.console.code.sdk_v3 import format_sdk_v3
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.request_state import RequestState
from microjobs_orchestrator.local.protocols.aws_json import parse_object


class CodeRoute:
    """The route that returns the request that created a resource, as members and as programs.

    Args:
        create_requests: finds the request that created a resource, and the requests that must precede it.
    """

    def __init__(self, create_requests: CreateRequests) -> None:
        self._create_requests = create_requests

    def respond(self, state: RequestState) -> Response:
        """Return the request that created a resource, and programs that send it and the requests that must precede it.

        The member `arn` of the body names the resource.
        """
        arn = parse_object("code", state.request.get_data()).get("arn")
        if not isinstance(arn, str):
            raise ServiceError("ValidationException", "the body must have the member 'arn', which is text")
        requests = self._create_requests.find(arn)
        url, region = state.request.host_url.rstrip("/"), arn.split(":")[3]
        content = {
            "operation": requests[-1].operation,
            "members": dict(requests[-1].members),
            "tokenMembers": requests[-1].idempotency_members,
            "programs": {
                "boto3": format_boto3(requests, url, region),
                "AWS CLI": format_cli(requests, url, region),
                "SageMaker SDK v3": format_sdk_v3(requests),
                "SageMaker SDK v2": format_sdk_v2(requests, PROGRAMS),
            },
        }
        return Response(json.dumps(content), content_type="application/json")
