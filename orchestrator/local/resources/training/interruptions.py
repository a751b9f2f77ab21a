"""Interruptions of managed spot training jobs by `microjobs interrupt`. AWS has no such operation."""

import json
import math
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session

from microjobs_orchestrator.local.control import Address
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.events import Interruption
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.training.job import TrainingJob
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB

PATH = "/_microjobs/interruptions"
"""The path of the request that `microjobs interrupt` sends to the server."""
TIMEOUT_SECONDS = 10
"""Seconds in which the server must respond to `microjobs interrupt`."""
INVALID_REQUEST_MESSAGE = (
    "The body must be a JSON object with the job's name in `job`, the seconds until the hosts end in `notice`, and the "
    "seconds until new hosts are available in `away`."
)


def interrupt(registry: Registry, parsed_body: Any) -> None:
    """Interrupt a running training job.

    Args:
        parsed_body: the JSON value in the body of a request to PATH.

    Raises:
        ValidationError: the body is malformed, or no spot hosts of the job are running.
    """
    name, interruption = _parse(parsed_body)
    job = registry.find(f"{TRAINING_JOB.arn_type}/{name}")
    if not isinstance(job, TrainingJob) or not job.interrupt(interruption):
        raise ValidationError(
            f"Training job {name!r} cannot be interrupted: it must be a managed spot job with SecondaryStatus Training."
        )


def _parse(parsed_body: Any) -> tuple[str, Interruption]:
    try:
        name, *seconds = parsed_body["job"], float(parsed_body["notice"]), float(parsed_body["away"])
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValidationError(INVALID_REQUEST_MESSAGE) from error
    if not isinstance(name, str) or not all(0 <= value < math.inf for value in seconds):
        raise ValidationError(INVALID_REQUEST_MESSAGE)
    return name, Interruption(*seconds)


def request_interruption(address: Address, job: str, interruption: Interruption) -> str:
    """Ask a server to interrupt a job. Return an error message, or an empty string after a success."""
    seconds = {"notice": interruption.notice_seconds, "away": interruption.away_seconds}
    body, headers = json.dumps({"job": job, **seconds}), {"Content-Type": "application/json"}
    request = AWSRequest("POST", f"{address.url}{PATH}", headers, body)
    credentials = Credentials(address.access_key_id, address.secret_access_key)
    SigV4Auth(credentials, "sagemaker", address.region).add_auth(request)
    try:
        response = URLLib3Session(timeout=TIMEOUT_SECONDS).send(request.prepare())
    except BotoCoreError as error:
        return str(error)
    return "" if response.status_code == 200 else str(json.loads(response.text).get("message", response.status_code))
