"""Inference components with the SageMaker SDK v2: two models on one endpoint, their copies and metrics.

Runs in the SDK's virtual environment. Usage: components_v2.py SERVE-IMAGE FIRST-MODEL-URI SECOND-MODEL-URI
"""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import boto3
import sagemaker
from sagemaker.compute_resource_requirements.resource_requirements import ResourceRequirements
from sagemaker.deserializers import CSVDeserializer
from sagemaker.enums import EndpointType
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer

image, *uris = sys.argv[1:]
# The SDK polls every 20 seconds; the components start in a few.
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(float(seconds), 0.5))
session = sagemaker.Session()
client: Any = boto3.client("sagemaker")
endpoint, role = "v2-components", os.environ["SAGEMAKER_ROLE"]


def wait_until(call: Callable[[], Any], seconds: float = 60) -> Any:
    """Call a function every half second until its result is true; return the result."""
    deadline = time.monotonic() + seconds
    while not (result := call()):
        assert time.monotonic() < deadline, call
        time.sleep(0.5)
    return result


def deploy(name: str, uri: str, copies: int) -> Predictor:
    requests = {"num_cpus": 1, "memory": 256, "copies": copies}
    Model(image, uri, role, name=name, sagemaker_session=session).deploy(
        initial_instance_count=1,
        instance_type="ml.m5.large",
        endpoint_name=endpoint,
        endpoint_type=EndpointType.INFERENCE_COMPONENT_BASED,
        inference_component_name=name,
        resources=ResourceRequirements(requests=requests),
    )
    return Predictor(endpoint, session, CSVSerializer(), CSVDeserializer(), component_name=name)


def read_invocations(name: str) -> float:
    """Return the number of invocations of a component in the last hour."""
    now = datetime.now(timezone.utc)  # noqa: UP017  the SDK also runs on Python 3.10
    answer = boto3.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="Invocations",
        Dimensions=[{"Name": "InferenceComponentName", "Value": name}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=1),
        Period=3600,
        Statistics=["Sum"],
    )
    return float(sum(point["Sum"] for point in answer["Datapoints"]))


# --- two models on one endpoint
first, second = deploy("v2-first", uris[0], 2), deploy("v2-second", uris[1], 1)
predicted = [predictor.predict([1, 2, 3])[0][0] for predictor in (first, second)]
listed = session.list_and_paginate_inference_component_names_associated_with_endpoint(endpoint)

# --- copies
client.update_inference_component_runtime_config(
    InferenceComponentName="v2-first", DesiredRuntimeConfig={"CopyCount": 1}
)
session.wait_for_inference_component("v2-first")
copies = session.describe_inference_component("v2-first")["RuntimeConfig"]["CurrentCopyCount"]
again = first.predict([1, 2, 3])[0][0]
invocations = wait_until(lambda: read_invocations("v2-first") == 2.0)

# --- the end
for name in ("v2-first", "v2-second"):
    session.delete_inference_component(name, wait=True)
client.delete_endpoint(EndpointName=endpoint)
print()  # ends the SDK's line of progress
print(
    json.dumps(
        {
            "predicted": predicted,
            "listed": sorted(listed),
            "copies": copies,
            "again": again,
            "is_counted": invocations,
        }
    )
)
