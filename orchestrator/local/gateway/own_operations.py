"""Operations of the project's own command line that no AWS service has. Requests are signed like all others."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from werkzeug import Response

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.gateway.exchange import Exchange, Interceptor
from microjobs_orchestrator.local.gateway.signatures import verify
from microjobs_orchestrator.local.gateway.spool import Spool
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.protocols.protocol import get_protocol

MAX_BODY_BYTES = 1 << 16

OwnOperations = Mapping[str, Callable[[Any], None]]
"""By path: a function of the body's JSON value. It raises ServiceError to refuse the request."""


def make_own_operations(credentials: Credentials, operations: OwnOperations) -> Interceptor:
    """Return an interceptor that answers POST requests to the paths of these operations."""
    spool = Spool()

    def answer_own(exchange: Exchange) -> Response | None:
        request = exchange.request
        operation = operations.get(request.path) if request.method == "POST" else None
        if operation is None or exchange.form is not None:
            return None
        exchange.protocol = get_protocol("json")
        with spool.open(request, MAX_BODY_BYTES) as body:
            verify(request, exchange.claim, credentials, body.digest)
            content = request.get_data()
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValidationError(f"The body is not JSON: {error}") from error
        operation(value)
        return Response("{}", content_type="application/json")

    return answer_own
