"""Inference components with the resources of the SageMaker SDK v3: two models on one endpoint, and their copies.

Runs in the SDK's virtual environment. Usage: components_v3.py SERVE-IMAGE FIRST-MODEL-URI SECOND-MODEL-URI
"""

import json
import os
import sys
import time

from sagemaker.core.resources import Endpoint, EndpointConfig, InferenceComponent
from sagemaker.core.shapes import (
    InferenceComponentComputeResourceRequirements,
    InferenceComponentContainerSpecification,
    InferenceComponentRuntimeConfig,
    InferenceComponentSpecification,
    ProductionVariant,
)

image, *uris = sys.argv[1:]
# The SDK polls every 5 seconds; the components start in a few.
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(float(seconds), 0.5))
name = "v3-components"
variant = ProductionVariant(variant_name="main", instance_type="ml.m5.large", initial_instance_count=1)
EndpointConfig.create(name, execution_role_arn=os.environ["SAGEMAKER_ROLE"], production_variants=[variant])
endpoint = Endpoint.create(name, endpoint_config_name=name)
endpoint.wait_for_status("InService")
requirements = InferenceComponentComputeResourceRequirements(min_memory_required_in_mb=256)


def create(component: str, uri: str, copies: int) -> InferenceComponent:
    container = InferenceComponentContainerSpecification(image=image, artifact_url=uri)
    created = InferenceComponent.create(
        component,
        endpoint_name=name,
        variant_name="main",
        specification=InferenceComponentSpecification(container=container, compute_resource_requirements=requirements),
        runtime_config=InferenceComponentRuntimeConfig(copy_count=copies),
    )
    created.wait_for_status("InService")
    return created


def invoke(component: str) -> str:
    response = endpoint.invoke(
        body=b"1,2,3", content_type="text/csv", accept="text/csv", inference_component_name=component
    )
    return str(response.body.read().decode().strip())


first, second = create("v3-first", uris[0], 1), create("v3-second", uris[1], 1)
predicted = [invoke("v3-first"), invoke("v3-second")]
first.update_runtime_configs(desired_runtime_config=InferenceComponentRuntimeConfig(copy_count=2))
first.wait_for_status("InService")
copies = first.refresh().runtime_config.current_copy_count
listed = sorted(found.inference_component_name for found in InferenceComponent.get_all(endpoint_name_equals=name))
for component in (first, second):
    component.delete()
    component.wait_for_delete()
endpoint.delete()
print()  # ends the SDK's line of progress
print(json.dumps({"predicted": predicted, "copies": copies, "listed": listed}))
