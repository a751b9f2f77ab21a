"""Connections to the processes of MLflow servers, for the gateway."""

from collections.abc import Callable

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.mlflow.kinds import MLFLOW_APP, MLFLOW_TRACKING_SERVER
from microjobs_orchestrator.local.resources.mlflow.operations import describe_absence
from microjobs_orchestrator.local.resources.mlflow.tracking_server import TrackingServer
from microjobs_orchestrator.local.resources.models.client import Connect

Connector = Callable[[str], Connect]
"""Takes the ARN of an MLflow server; returns a function that connects to its process."""


def make_connector(context: Context, registry: Registry) -> Connector:
    """Return a function that finds the process of a server.

    It raises ServiceError if the server does not exist, or does not answer.
    """

    def find(arn: str) -> Connect:
        record = context.state.get_by_arn(arn)
        if record is None or record.kind not in (MLFLOW_TRACKING_SERVER.arn_type, MLFLOW_APP.arn_type):
            raise ServiceError("ResourceNotFound", f"Could not find the MLflow server {arn!r:.200}.", 404)
        runnable = registry.find(f"{record.kind}/{record.name}")
        if not isinstance(runnable, TrackingServer) or runnable.connect is None:
            raise ServiceError("ServiceUnavailable", describe_absence(record), 503)
        return runnable.connect

    return find
