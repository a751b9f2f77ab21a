"""Requests that created jobs: pages show them as code, and send them again with changes."""

import json
from collections.abc import Mapping

from werkzeug import Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.exchange import Exchange
from microjobs_orchestrator.local.protocols.aws_json import parse_object
from microjobs_orchestrator.local.state import State

OPERATIONS: Mapping[str, str] = {
    "hyper-parameter-tuning-job": "CreateHyperParameterTuningJob",
    "processing-job": "CreateProcessingJob",
    "training-job": "CreateTrainingJob",
    "transform-job": "CreateTransformJob",
}
"""Operations whose requests the console returns, by types of resources."""


class JobRequests:
    """The requests of all jobs."""

    def __init__(self, state: State) -> None:
        self._state = state

    def read(self, exchange: Exchange) -> Response:
        """Return the operation and the members that created the job with the member `arn`."""
        arn = parse_object("requests", exchange.request.get_data()).get("arn")
        job = self._state.get_by_arn(arn) if isinstance(arn, str) else None
        if job is None or job.kind not in OPERATIONS:
            raise ServiceError("ResourceNotFoundException", f"there is no job {arn!r:.200}")
        content = {"operation": OPERATIONS[job.kind], "members": dict(job.request)}
        return Response(json.dumps(content), content_type="application/json")
