"""A multi-model endpoint with MultiDataModel of the SageMaker SDK v2.

Runs in the SDK's virtual environment. Usage: multi_model_v2.py SERVE-IMAGE FOLDER-OF-ARCHIVES
"""

import json
import os
import sys
import time
from pathlib import Path

import boto3
import sagemaker
from botocore.exceptions import ClientError
from sagemaker.deserializers import CSVDeserializer
from sagemaker.model import Model
from sagemaker.multidatamodel import MultiDataModel
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer

image, folder = sys.argv[1:]
# The SDK polls every 5 to 30 seconds; the endpoint starts in a few.
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(float(seconds), 0.5))
session = sagemaker.Session()
name, prefix = "sdk-multi-model", f"s3://{session.default_bucket()}/sdk-multi-model/"
results: dict[str, object] = {}

# --- the models may be added after the start of the endpoint
model = Model(image, role=os.environ["SAGEMAKER_ROLE"], sagemaker_session=session, predictor_cls=Predictor)
models = MultiDataModel(name, prefix, model=model, sagemaker_session=session)
predictor = models.deploy(
    1, "ml.m5.large", endpoint_name=name, serializer=CSVSerializer(), deserializer=CSVDeserializer()
)
results["models at the start"] = list(models.list_models())
for archive in sorted(Path(folder).glob("*.tar.gz")):
    models.add_model(str(archive), archive.name)
results["models"] = sorted(models.list_models())

results["predictions"] = {
    target: predictor.predict([[1, 2, 3]], target_model=target) for target in models.list_models()
}
models.add_model(str(Path(folder) / "two.tar.gz"), "more/three.tar.gz")
results["added"] = predictor.predict([[1, 2, 3]], target_model="more/three.tar.gz")

# --- errors
codes = []
for members in ({"TargetModel": "missing.tar.gz"}, {}):
    try:
        boto3.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=b"1,2,3", **members)
    except ClientError as error:
        codes.append(error.response["Error"]["Code"])
results["errors"] = codes

described = boto3.client("sagemaker").describe_model(ModelName=name)
results["described"] = [described["PrimaryContainer"][member] for member in ("Mode", "ModelDataUrl")]
predictor.delete_endpoint()
models.delete_model()
print("\n" + json.dumps(results))  # the SDK leaves a line with dots
