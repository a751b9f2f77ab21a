"""Examples of an endpoint configuration and of an endpoint."""

from typing import Any

from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from tests.local.clients import LocalServer
from tests.local.resources.examples import Example


def make_config_request(server: LocalServer, name: str) -> dict[str, Any]:  # noqa: ARG001
    variant = {"VariantName": "main", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    return {"ProductionVariants": [variant]}


def make_endpoint_request(server: LocalServer, name: str) -> dict[str, Any]:  # noqa: ARG001
    return {"EndpointConfigName": name}


EXAMPLES = (
    Example(ENDPOINT_CONFIG, make_config_request, required_kinds=(MODEL,)),
    Example(ENDPOINT, make_endpoint_request, required_kinds=(ENDPOINT_CONFIG,)),
)
