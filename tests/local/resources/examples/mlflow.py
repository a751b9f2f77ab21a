"""Examples of an MLflow tracking server and an app."""

from typing import Any

from microjobs_orchestrator.local.resources.mlflow.kinds import MLFLOW_APP, MLFLOW_TRACKING_SERVER
from tests.local.clients import LocalServer
from tests.local.resources.examples import Example


def make_request(server: LocalServer, name: str) -> dict[str, Any]:
    return {"ArtifactStoreUri": server.uri(f"{name}/artifacts"), "RoleArn": server.address.role_arn}


EXAMPLES = (Example(MLFLOW_TRACKING_SERVER, make_request), Example(MLFLOW_APP, make_request))
