"""Plug-in of MLflow: with it, MLflow's server reads and writes artifacts only in buckets.

Clients choose the locations of artifacts. Without this plug-in, a job in a container could read files of this machine,
and reach addresses that only this machine can reach.
"""

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.artifact import artifact_repository_registry

ALLOWED_SCHEMES = ("s3", "runs", "models")
"""The allowed schemes: buckets, and locations that MLflow replaces by other locations."""


def refuse(artifact_uri: str, **_: object) -> None:
    """Refuse a location. MLflow calls this function instead of a class that would open the location."""
    message = f"artifacts in {artifact_uri!r} are refused: this server keeps artifacts in buckets; use s3://"
    raise MlflowException(message, INVALID_PARAMETER_VALUE)


_registry = artifact_repository_registry._artifact_repository_registry
for _scheme in set(_registry.get_registered_artifact_repositories()) - {*ALLOWED_SCHEMES}:
    _registry.register(_scheme, refuse)
