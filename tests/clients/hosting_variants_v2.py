"""Serverless inference and data capture with the SageMaker SDK v2, and a shadow variant with boto3.

Runs in the SDK's virtual environment. Usage: hosting_variants_v2.py SERVE-IMAGE MODEL.tar.gz
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import boto3
import sagemaker
from sagemaker.deserializers import CSVDeserializer
from sagemaker.model import Model
from sagemaker.model_monitor import DataCaptureConfig
from sagemaker.predictor import Predictor
from sagemaker.s3 import S3Downloader
from sagemaker.serializers import CSVSerializer
from sagemaker.serverless import ServerlessInferenceConfig

image, archive = sys.argv[1:]
sess = sagemaker.session.Session()
bucket, role = sess.default_bucket(), os.environ["SAGEMAKER_ROLE"]
name = "sdk-variants"
data = sess.upload_data(archive, key_prefix=name)
client: Any = boto3.client("sagemaker")


def wait_until(call: Callable[[], Any], seconds: float = 60) -> Any:
    """Call a function every half second until its result is true; return the result."""
    deadline = time.monotonic() + seconds
    while not (result := call()):
        assert time.monotonic() < deadline, call
        time.sleep(0.5)
    return result


def deploy(endpoint: str, **options: Any) -> Predictor:
    """Deploy a model; wait for its endpoint in short steps, because the SDK would wait 30 s first."""
    model = Model(image, data, role, name=endpoint, sagemaker_session=sess)
    model.deploy(endpoint_name=endpoint, wait=False, **options)
    waiter = client.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=endpoint, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    return Predictor(endpoint, sess, CSVSerializer(), CSVDeserializer())


# --- a serverless endpoint
predictor = deploy(f"{name}-serverless", serverless_inference_config=ServerlessInferenceConfig(1024, 2))
serverless = predictor.predict([1, 2, 3])
config = client.describe_endpoint(EndpointName=predictor.endpoint_name)["ProductionVariants"][0]
predictor.delete_endpoint()

# --- data capture
destination = f"s3://{bucket}/{name}/captured"
capture = DataCaptureConfig(True, 100, destination, sagemaker_session=sess)
predictor = deploy(name, initial_instance_count=1, instance_type="ml.m5.large", data_capture_config=capture)
predictor.predict([1, 2, 3], inference_id="first")
files = wait_until(lambda: S3Downloader.list(f"{destination}/{name}/AllTraffic", sagemaker_session=sess))
records = [json.loads(line) for line in S3Downloader.read_file(files[0], sagemaker_session=sess).splitlines()]
status = client.describe_endpoint(EndpointName=name)["DataCaptureConfig"]["CaptureStatus"]

# --- a shadow variant, whose captured response is that of its own model
variant = {"ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
client.create_endpoint_config(
    EndpointConfigName=f"{name}-shadow",
    ProductionVariants=[{**variant, "VariantName": "AllTraffic"}],
    ShadowProductionVariants=[{**variant, "VariantName": "shadow"}],
    DataCaptureConfig=capture._to_request_dict(),
)
client.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-shadow")
wait_until(lambda: client.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService")
predictor.predict([4, 5, 6])
(shadow,) = wait_until(lambda: S3Downloader.list(f"{destination}/{name}/shadow", sagemaker_session=sess))
shadow_record = json.loads(S3Downloader.read_file(shadow, sagemaker_session=sess))
client.delete_endpoint(EndpointName=name)
print(
    json.dumps(
        {
            "serverless": serverless,
            "config": config["CurrentServerlessConfig"],
            "records": records,
            "status": status,
            "shadow": shadow_record["captureData"]["endpointOutput"]["data"],
        }
    )
)
