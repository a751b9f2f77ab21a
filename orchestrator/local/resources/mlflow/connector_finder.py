"""Finds the processes of MLflow servers, and connects to them."""

from collections.abc import Callable

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.mlflow.kinds import MLFLOW_APP, MLFLOW_TRACKING_SERVER
from microjobs_orchestrator.local.resources.mlflow.server import explain_missing_response
from microjobs_orchestrator.local.resources.models.client import Connect

ConnectorFinder = Callable[[str], Connect]
"""A function that takes the ARN of an MLflow server, and returns a function that connects to the server's process."""


def make_connector_finder(context: Context) -> ConnectorFinder:
    """Return a `ConnectorFinder`. It raises ServiceError if the server does not exist, or has no running process."""

    def find(arn: str) -> Connect:
        record = context.state.get_by_arn(arn)
        if record is None or record.kind not in (MLFLOW_TRACKING_SERVER.arn_type, MLFLOW_APP.arn_type):
            raise ServiceError("ResourceNotFound", f"Could not find the MLflow server {arn!r:.200}.", 404)
        if (connect := context.mlflow_connectors.find(arn)) is None:
            raise ServiceError("ServiceUnavailable", explain_missing_response(record), 503)
        return connect

    return find
