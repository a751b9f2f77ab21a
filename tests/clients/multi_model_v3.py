"""A multi-model endpoint with the resources of the SageMaker SDK v3.

Runs in the SDK's virtual environment. Usage: multi_model_v3.py SERVE-IMAGE PREFIX TARGET…
"""

import json
import os
import sys
import time

from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, MultiModelConfig, ProductionVariant

image, prefix, *targets = sys.argv[1:]
# The SDK polls every 5 seconds; the endpoint starts in a few.
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(float(seconds), 0.5))
name = "v3-multi-model"
container = ContainerDefinition(
    image=image,
    mode="MultiModel",
    model_data_url=prefix,
    multi_model_config=MultiModelConfig(model_cache_setting="Enabled"),
)
model = Model.create(name, primary_container=container, execution_role_arn=os.environ["SAGEMAKER_ROLE"])
variant = ProductionVariant(variant_name="main", model_name=name, instance_type="ml.m5.large", initial_instance_count=1)
config = EndpointConfig.create(name, production_variants=[variant])
endpoint = Endpoint.create(name, endpoint_config_name=name)
endpoint.wait_for_status("InService")
request = {"body": b"1,2,3", "content_type": "text/csv", "accept": "text/csv"}
predictions = [endpoint.invoke(**request, target_model=target).body.read().decode().strip() for target in targets]
described = Model.get(name).primary_container
endpoint.delete()
config.delete()
model.delete()
setting = described.multi_model_config.model_cache_setting
print(json.dumps({"predictions": predictions, "described": [described.mode, described.model_data_url, setting]}))
