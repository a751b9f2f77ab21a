"""Serverless, shadow variants and data capture with the resources of the SageMaker SDK v3.

Runs in the SDK's virtual environment. Usage: hosting_variants_v3.py SERVE-IMAGE MODEL-URI CAPTURE-URI
"""

import json
import os
import sys
import time
from typing import Any

import boto3
from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import (
    CaptureContentTypeHeader,
    CaptureOption,
    ContainerDefinition,
    DataCaptureConfig,
    DesiredWeightAndCapacity,
    ProductionVariant,
    ProductionVariantServerlessUpdateConfig,
)

image, uri, destination = sys.argv[1:]
# The SDK polls every 5 seconds; the endpoint starts in a few.
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(float(seconds), 0.5))
container = ContainerDefinition(image=image, model_data_url=uri)
model = Model.create("v3-variants", primary_container=container, execution_role_arn=os.environ["SAGEMAKER_ROLE"])


def serve(name: str) -> tuple[Endpoint, str]:
    """Create the endpoint of a configuration with its name; return it with its response to one request."""
    endpoint = Endpoint.create(name, endpoint_config_name=name)
    endpoint.wait_for_status("InService")
    response = endpoint.invoke(body=b"1,2,3", content_type="text/csv", accept="text/csv")
    return endpoint, response.body.read().decode().strip()


def make_variant(name: str, **members: Any) -> ProductionVariant:
    return ProductionVariant(variant_name=name, model_name="v3-variants", **members)


# --- a serverless variant, whose concurrency changes
client: Any = boto3.client("sagemaker")
variant = {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 2}}
# This version sends `memory_size_in_mb` as MemorySizeInMb, which botocore refuses.
client.create_endpoint_config(
    EndpointConfigName="v3-serverless",
    ProductionVariants=[{**variant, "VariantName": "main", "ModelName": "v3-variants"}],
)
endpoint, serverless = serve("v3-serverless")
update = ProductionVariantServerlessUpdateConfig(max_concurrency=5)
change = DesiredWeightAndCapacity(variant_name="main", serverless_update_config=update)
endpoint.update_weights_and_capacities(desired_weights_and_capacities=[change])
endpoint.wait_for_status("InService")
concurrency = endpoint.refresh().production_variants[0].current_serverless_config.max_concurrency
endpoint.delete()

# --- a shadow variant and data capture
instances = {"instance_type": "ml.m5.large", "initial_instance_count": 1}
capture = DataCaptureConfig(
    initial_sampling_percentage=100,
    destination_s3_uri=destination,
    capture_options=[CaptureOption(capture_mode="InputAndOutput")],
    capture_content_type_header=CaptureContentTypeHeader(csv_content_types=["text/csv"]),
)
EndpointConfig.create(
    "v3-captured",
    production_variants=[make_variant("main", **instances)],
    shadow_production_variants=[make_variant("shadow", **instances)],
    data_capture_config=capture,
)
endpoint, captured = serve("v3-captured")
described = endpoint.refresh()
names = [described.shadow_production_variants[0].variant_name, described.data_capture_config.capture_status]
endpoint.delete()
print(json.dumps({"predictions": [serverless, captured], "concurrency": concurrency, "described": names}))
