"""Requests of this server to its MLflow servers."""

import io
import json
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.mlflow.connector_finder import make_connector_finder
from microjobs_orchestrator.local.resources.mlflow.kinds import (
    ACTIVE_STATUSES,
    MLFLOW_APP,
    MLFLOW_TRACKING_SERVER,
    RUNNING_STATUSES,
)
from microjobs_orchestrator.local.resources.models.client import Client, NoResponseError
from microjobs_orchestrator.local.state import Record

API_PATH = "/api/2.0/mlflow/"
TIMEOUT_SECONDS = 60.0
MAX_START_WAIT_SECONDS = 120.0
"""Maximum number of seconds to wait for an MLflow server that is starting. It does not include an installation of
MLflow, which only the first MLflow server of a home needs."""


def find_active_server(context: Context, arn: str) -> Record:
    """Return the record of an MLflow server. Raise ValidationError if it does not exist, or does not run."""
    record = context.state.get_by_arn(arn)
    if record is None or record.kind not in (MLFLOW_TRACKING_SERVER.arn_type, MLFLOW_APP.arn_type):
        remedy = "create it with CreateMlflowTrackingServer or CreateMlflowApp"
        raise ValidationError(f"MlflowResourceArn {arn} does not exist: {remedy}.")
    if record.status not in ACTIVE_STATUSES:
        raise ValidationError(f"MlflowResourceArn {arn} is {record.status}: start it, or wait until it is in service.")
    return record


def call_api(context: Context, arn: str, method: str, path: str, members: Mapping[str, Any]) -> Mapping[str, Any]:
    """Send a request of MLflow's REST API to an MLflow server, and return its response.

    Raises:
        ServiceError: the server does not answer, or refuses the request. The error of a refusal has MLflow's code.
    """
    _await_start(context, arn)
    connect = make_connector_finder(context)(arn)
    target, body, content = f"{API_PATH}{path}", None, io.BytesIO()
    if method == "GET":
        target = f"{target}?{urlencode(members)}"
    else:
        body = json.dumps(members).encode()
    headers = {"Content-Type": "application/json"}
    try:
        with closing(Client(connect)) as client:
            response = client.request(method, target, body, headers, timeout=TIMEOUT_SECONDS, into=content)
    except NoResponseError as error:
        raise ServiceError("ServiceUnavailable", f"the MLflow server {arn} does not answer: {error}", 503) from error
    return _read_response(response.status, content.getvalue())


def _await_start(context: Context, arn: str) -> None:
    """Wait while an MLflow server is starting. After a crash of the local server, an MLflow server starts at the same
    time as the jobs that use it."""
    record = context.state.get_by_arn(arn)
    if record is not None and record.status in RUNNING_STATUSES:
        context.mlflow_connectors.wait(arn, MAX_START_WAIT_SECONDS)


def _read_response(status: int, content: bytes) -> Mapping[str, Any]:
    try:
        response: dict[str, Any] = json.loads(content)
    except ValueError:
        response = {"error_code": "InternalFailure", "message": content.decode(errors="replace")[:200]}
    if status != HTTPStatus.OK:
        raise ServiceError(response.get("error_code", "InternalFailure"), f"MLflow: {response.get('message')}", status)
    return response
