"""Runs an inference pipeline with PipelineModel of the SageMaker SDK v2: an endpoint, a transform job, a model package.

Runs in the SDK's virtual environment. Usage: inference_pipeline_v2.py SERVE-IMAGE PREFIX
"""

import json
import os
import sys

import boto3
import sagemaker
from botocore.exceptions import ClientError
from sagemaker.deserializers import CSVDeserializer
from sagemaker.model import Model, ModelPackage
from sagemaker.pipeline import PipelineModel
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer

from tests.clients.polling import poll_quickly

image, prefix = sys.argv[1:]
poll_quickly()
session, role, name = sagemaker.Session(), os.environ["SAGEMAKER_ROLE"], "sdk-inference-pipeline"
bucket, instance_type = session.default_bucket(), "ml.m5.large"
results: dict[str, object] = {}


def make_pipeline(name: str, *archives: str) -> PipelineModel:
    models = [
        Model(
            image,
            f"{prefix}/{archive}.tar.gz",
            role,
            env={"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
            sagemaker_session=session,
        )
        for archive in archives
    ]
    return PipelineModel(models, role, Predictor, name, sagemaker_session=session)


# --- an endpoint
codec = {"serializer": CSVSerializer(), "deserializer": CSVDeserializer()}
pipeline = make_pipeline(name, "scale", "predict")
predictor = pipeline.deploy(1, instance_type, endpoint_name=name, **codec)
results["predicted"] = predictor.predict([[1, 2, 3]])
try:
    predictor.predict([[1, 2]])
except ClientError as error:
    results["error"] = error.response["Error"]["Message"]
predictor.delete_endpoint()

# --- a transform job
rows = session.upload_string_as_file_body("1,2,3\n4,5,6\n", bucket, f"{name}/rows/rows.csv")
output = f"s3://{bucket}/{name}/transformed"
transformer = pipeline.transformer(1, instance_type, output_path=output, accept="text/csv", assemble_with="Line")
transformer.transform(rows, content_type="text/csv", split_type="Line", logs=False)
results["transformed"] = session.read_s3_file(bucket, f"{name}/transformed/rows.csv.out")

# --- a model package with all containers
group = {"model_package_group_name": name}
boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName=name)
package = pipeline.register(
    ["text/csv"], ["text/csv"], [instance_type], [instance_type], approval_status="Approved", **group
)
model = ModelPackage(role, model_package_arn=package.model_package_arn, sagemaker_session=session)
model.predictor_cls = Predictor
predictor = model.deploy(1, instance_type, endpoint_name=f"{name}-package", **codec)
results["package"] = predictor.predict([[1, 2, 3]])
predictor.delete_endpoint()
for resource in (pipeline, model):
    resource.delete_model()
print("\n" + json.dumps(results))  # the SDK leaves an incomplete line with dots
