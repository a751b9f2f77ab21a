"""Automatic registration: versions of models in an MLflow server become model packages of the model registry."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.mlflow import rest_client
from microjobs_orchestrator.local.resources.model_registry import create
from microjobs_orchestrator.local.resources.model_registry.groups import create_group
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE_GROUP

logger = logging.getLogger(__name__)

MODEL_VERSIONS_PATH = "/mlflow/model-versions/create"
"""The end of the path of MLflow's request for a new version of a model."""
REGISTERS_MODELS = "RegistersModels"
"""Key of the internal state of MLflow servers. Its value states whether versions of models are registered."""
REGISTRATION_ENABLED = "AutoModelRegistrationEnabled"
MAX_NAME_CHARACTERS = 63

Register = Callable[[str, bytes], None]
"""A function that takes the ARN of an MLflow server, and the body of the server's response to a request for
`MODEL_VERSIONS_PATH`."""


def make_registrar(context: Context) -> Register:
    """Return a function that registers a new version of a model, if the settings of the MLflow server require this.

    The function only logs errors, because MLflow has already created the version.
    """

    def register(arn: str, response: bytes) -> None:
        record = context.state.get_by_arn(arn)
        if record is None or not record.internal.get(REGISTERS_MODELS, False):
            return
        try:
            version = json.loads(response)["model_version"]
            _register(context, arn, version)
        except (ServiceError, ValueError, TypeError, KeyError) as error:
            logger.warning("a version of a model of %s could not be registered: %s", arn, error)

    return register


def read_registration_setting(request: Mapping[str, Any]) -> dict[str, bool]:
    """Return the part of the internal state that a Create or Update request sets; empty if it sets none."""
    if "AutomaticModelRegistration" in request:
        return {REGISTERS_MODELS: request["AutomaticModelRegistration"]}
    if "ModelRegistrationMode" in request:
        return {REGISTERS_MODELS: request["ModelRegistrationMode"] == REGISTRATION_ENABLED}
    return {}


def make_group_name(model: str) -> str:
    """Return the name of the group for a model of MLflow. Names in MLflow may have characters that groups do not
    allow."""
    return re.sub("[^a-zA-Z0-9]+", "-", model).strip("-")[:MAX_NAME_CHARACTERS].rstrip("-") or "model"


def _register(context: Context, arn: str, version: Mapping[str, Any]) -> None:
    """Register a version of a model in the group for the model. If the group does not exist, add it."""
    query = {"name": version["name"], "version": version["version"]}
    uri = rest_client.call_api(context, arn, "GET", "model-versions/get-download-uri", query)["artifact_uri"]
    group = make_group_name(version["name"])
    if context.state.get(MODEL_PACKAGE_GROUP.arn_type, group) is None:
        description = f"Versions of the MLflow model {version['name']}"
        with suppress(ServiceError):  # another request may have just created the group
            create_group(context, {"ModelPackageGroupName": group, "ModelPackageGroupDescription": description})
    metadata = {
        "mlflow_model_name": version["name"],
        "mlflow_model_version": version["version"],
        "mlflow_run_id": version.get("run_id", ""),
        "mlflow_server": arn,
    }
    request = {
        "ModelPackageGroupName": group,
        "SourceUri": uri,
        "ModelApprovalStatus": "PendingManualApproval",
        "CustomerMetadataProperties": {name: value for name, value in metadata.items() if value},
    }
    create.create(context, request)
