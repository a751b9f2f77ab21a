"""Models with several containers in the SageMaker SDK v3: an inference pipeline, and the mode Direct.

Runs in the SDK's virtual environment. Usage: inference_pipeline_v3.py SERVE-IMAGE PREFIX
"""

import json
import os
import sys
import time

from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, InferenceExecutionConfig, ProductionVariant
from sagemaker.serve import ModelBuilder

image, prefix = sys.argv[1:]
# The SDK polls every 5 seconds; the endpoint starts in a few.
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(float(seconds), 0.5))
role, instance_type = os.environ["SAGEMAKER_ROLE"], "ml.m5.large"
request = {"body": b"1,2,3", "content_type": "text/csv", "accept": "text/csv"}
environment = {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
containers = [
    ContainerDefinition(
        container_hostname=step, image=image, model_data_url=f"{prefix}/{step}.tar.gz", environment=environment
    )
    for step in ("scale", "predict")
]
results: dict[str, object] = {}


def predict(endpoint: Endpoint, **members: str) -> str:
    return str(endpoint.invoke(**request, **members).body.read().decode().strip())


# --- a pipeline of two models
models = [
    Model.create(container.container_hostname, primary_container=container, execution_role_arn=role)
    for container in containers
]
builder = ModelBuilder(model=models, role_arn=role, instance_type=instance_type)
pipeline = builder.build(model_name="v3-pipeline")
endpoint = builder.deploy(endpoint_name="v3-pipeline", instance_type=instance_type, initial_instance_count=1)
results["pipeline"] = predict(endpoint)
endpoint.delete()

# --- a model whose requests choose the container
mode = InferenceExecutionConfig(mode="Direct")
direct = Model.create("v3-direct", containers=containers, inference_execution_config=mode, execution_role_arn=role)
variant = ProductionVariant(
    variant_name="main", model_name="v3-direct", instance_type=instance_type, initial_instance_count=1
)
config = EndpointConfig.create("v3-direct", production_variants=[variant])
endpoint = Endpoint.create("v3-direct", endpoint_config_name="v3-direct")
endpoint.wait_for_status("InService")
results["direct"] = {step: predict(endpoint, target_container_hostname=step) for step in ("scale", "predict")}
endpoint.delete()
config.delete()
for model in (*models, pipeline, direct):
    model.delete()
print("\n" + json.dumps(results))  # the SDK leaves a line with a frame
