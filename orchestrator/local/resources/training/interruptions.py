"""Interruptions of managed spot training jobs by `microjobs interrupt`. AWS has no such operation."""

import json
import math
from collections.abc import Callable
from typing import Any

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from microjobs_orchestrator.local.control import Address
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.events import Interruption
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.training.job import TrainingJob
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB

PATH = "/_microjobs/interruptions"
TIMEOUT = 10.0
"""Seconds."""
EXPECTED = "An object with a job's name in `job`, and seconds in `notice` and `away`, is expected."


def make_interrupter(registry: Registry) -> Callable[[Any], None]:
    """Return the server's handler of these requests."""

    def interrupt(content: Any) -> None:
        """Interrupt a running training job.

        Raises:
            ValidationError: the request is malformed, or the job has no hosts now.
        """
        name, interruption = _parse(content)
        job = registry.find(f"{TRAINING_JOB.arn_type}/{name}")
        if not isinstance(job, TrainingJob) or not job.interrupt(interruption):
            raise ValidationError(f"Training job {name!r} has no spot hosts now: only a job that is Training has.")

    return interrupt


def _parse(content: Any) -> tuple[str, Interruption]:
    try:
        name, *seconds = content["job"], float(content["notice"]), float(content["away"])
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValidationError(EXPECTED) from error
    if not isinstance(name, str) or not all(0 <= value < math.inf for value in seconds):
        raise ValidationError(EXPECTED)
    return name, Interruption(*seconds)


def request_interruption(address: Address, job: str, interruption: Interruption) -> str:
    """Interrupt a job of the server at an address. Return an error message, or an empty text."""
    seconds = {"notice": interruption.notice_seconds, "away": interruption.replacement_seconds}
    body = json.dumps({"job": job, **seconds})
    headers = {"Content-Type": "application/json"}
    request = AWSRequest("POST", f"{address.url}{PATH}", headers, body)
    credentials = Credentials(address.access_key_id, address.secret_access_key)
    SigV4Auth(credentials, "sagemaker", address.region).add_auth(request)
    try:
        response = urllib3.request(
            "POST",
            f"{address.url}{PATH}",
            body=body,
            headers=dict(request.headers.items()),
            timeout=TIMEOUT,
            retries=False,
        )
    except urllib3.exceptions.HTTPError as error:
        return str(error)
    return "" if response.status == 200 else str(response.json().get("message", response.status))
