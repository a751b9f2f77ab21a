"""An example of an inference component, and of an endpoint for it."""

from typing import Any

from microjobs_orchestrator.local.identity import get_role_arn
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from tests.local.clients import LocalServer
from tests.local.resources.examples import Example


def make_inference_component_request(server: LocalServer, name: str) -> dict[str, Any]:
    """Create an endpoint whose variant has no model; return the request for a component on this endpoint."""
    endpoint, role = f"{name}-components", get_role_arn()
    variant = {"VariantName": "main", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    server.sagemaker.create_endpoint_config(
        EndpointConfigName=endpoint, ExecutionRoleArn=role, ProductionVariants=[variant]
    )
    server.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    requirements = {"MinMemoryRequiredInMb": 128, "MaxMemoryRequiredInMb": 512}
    return {
        "EndpointName": endpoint,
        "VariantName": "main",
        "Specification": {"ModelName": name, "ComputeResourceRequirements": requirements},
        "RuntimeConfig": {"CopyCount": 2},
    }


EXAMPLES = (Example(INFERENCE_COMPONENT, make_inference_component_request, required_kinds=(MODEL,)),)
