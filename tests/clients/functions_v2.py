"""Runs two pipelines with the SageMaker SDK v2: one of Python functions, and one that repacks a model.

Runs in the SDK's virtual environment. Usage: functions_v2.py IMAGE SERVE-IMAGE BUCKET. The image has Python and pip.
"""

import json
import os
import sys
from pathlib import Path

from sagemaker import Session
from sagemaker.estimator import Estimator
from sagemaker.model import Model
from sagemaker.workflow.function_step import step
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.steps import TrainingStep

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

image, serve_image, bucket = sys.argv[1:]
poll_quickly()
sess = PipelineSession(default_bucket=bucket)
role, instance_type = os.environ["SAGEMAKER_ROLE"], "ml.m5.large"
results: dict[str, object] = {}


@step(name="Add", instance_type=instance_type, image_uri=image, role=role)  # type: ignore[untyped-decorator]
def add(left: int, right: int) -> int:
    return left + right


@step(name="Double", instance_type=instance_type, image_uri=image, role=role)  # type: ignore[untyped-decorator]
def double(value: int) -> int:
    return 2 * value


function_pipeline = Pipeline("functions-v2", steps=[double(add(3, 4))], sagemaker_session=sess)
function_pipeline.upsert(role)
execution = function_pipeline.start()
execution.wait(delay=1, max_attempts=600)
results["doubled"] = execution.result("Double")

# --- a pipeline that trains a model and adds the user's code to it
source = Path("source")
source.mkdir()
(source / "inference.py").write_text("def model_fn(folder):\n    return 1\n")
command = ["/bin/sh", "-c", f"echo weights > {Layout().model}/weights"]
estimator = Estimator(image, role, 1, instance_type, sagemaker_session=sess, container_entry_point=command)
train = TrainingStep("Train", step_args=estimator.fit())
archive = train.properties.ModelArtifacts.S3ModelArtifacts
model = Model(serve_image, archive, role, entry_point="inference.py", source_dir="source", sagemaker_session=sess)
register = ModelStep(
    "Register",
    model.register(
        content_types=["text/csv"],
        response_types=["text/csv"],
        inference_instances=[instance_type],
        transform_instances=[instance_type],
        model_package_group_name="functions-v2",
    ),
)
repack_pipeline = Pipeline("repacking-v2", steps=[train, register], sagemaker_session=sess)
repack_pipeline.upsert(role)
execution = repack_pipeline.start()
execution.wait(delay=1, max_attempts=600)
results["steps"] = {item["StepName"]: item["StepStatus"] for item in execution.list_steps()}
client = Session(default_bucket=bucket).sagemaker_client
(package,) = client.list_model_packages(ModelPackageGroupName="functions-v2")["ModelPackageSummaryList"]
description = client.describe_model_package(ModelPackageName=package["ModelPackageArn"])
results["archive"] = description["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
print()
print(json.dumps(results))
