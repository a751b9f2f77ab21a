"""Examples of an MLflow tracking server and an app."""

from typing import Any

from microjobs_orchestrator.local.resources.mlflow.kinds import MLFLOW_APP, MLFLOW_TRACKING_SERVER
from tests.local.clients import LocalServer
from tests.local.resources.examples import Example


def make_request(local: LocalServer, name: str) -> dict[str, Any]:
    return {"ArtifactStoreUri": local.uri(f"{name}/artifacts"), "RoleArn": local.address.role_arn}


EXAMPLES = (Example(MLFLOW_TRACKING_SERVER, make_request), Example(MLFLOW_APP, make_request))
