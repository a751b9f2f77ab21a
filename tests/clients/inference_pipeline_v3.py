"""Runs an inference pipeline with ModelBuilder of the SageMaker SDK v3.

Runs in the SDK's virtual environment. Usage: inference_pipeline_v3.py SERVE-IMAGE PREFIX
"""

import json
import os
import sys

from sagemaker.core.resources import Model
from sagemaker.core.shapes import ContainerDefinition
from sagemaker.serve import ModelBuilder

from tests.clients.polling import poll_quickly

image, prefix = sys.argv[1:]
poll_quickly()
role, instance_type = os.environ["SAGEMAKER_ROLE"], "ml.m5.large"
request = {"body": b"1,2,3", "content_type": "text/csv", "accept": "text/csv"}
environment = {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
containers = [
    ContainerDefinition(
        container_hostname=archive, image=image, model_data_url=f"{prefix}/{archive}.tar.gz", environment=environment
    )
    for archive in ("scale", "predict")
]
models = [
    Model.create(container.container_hostname, primary_container=container, execution_role_arn=role)
    for container in containers
]
builder = ModelBuilder(model=models, role_arn=role, instance_type=instance_type)
pipeline = builder.build(model_name="v3-pipeline")
endpoint = builder.deploy(endpoint_name="v3-pipeline", instance_type=instance_type, initial_instance_count=1)
prediction = endpoint.invoke(**request).body.read().decode().strip()
endpoint.delete()
for model in (*models, pipeline):
    model.delete()
print("\n" + json.dumps(prediction))  # the SDK prints a frame, whose last line has no line break
