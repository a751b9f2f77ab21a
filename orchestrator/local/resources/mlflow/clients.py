"""Connections to the processes of MLflow servers."""

from collections.abc import Callable

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.mlflow.kinds import MLFLOW_APP, MLFLOW_TRACKING_SERVER
from microjobs_orchestrator.local.resources.mlflow.tracking_server import describe_absence
from microjobs_orchestrator.local.resources.models.client import Connect

Connector = Callable[[str], Connect]
"""Takes the ARN of an MLflow server; returns a function that connects to its process."""


def make_connector(context: Context) -> Connector:
    """Return a function that finds the process of a server.

    It raises ServiceError if the server does not exist, or does not answer.
    """

    def find(arn: str) -> Connect:
        record = context.state.get_by_arn(arn)
        if record is None or record.kind not in (MLFLOW_TRACKING_SERVER.arn_type, MLFLOW_APP.arn_type):
            raise ServiceError("ResourceNotFound", f"Could not find the MLflow server {arn!r:.200}.", 404)
        if (connect := context.mlflow_connections.find(arn)) is None:
            raise ServiceError("ServiceUnavailable", describe_absence(record), 503)
        return connect

    return find
