"""The housing workflow as a pipeline of the SageMaker SDK v3: scale, train, tune, score, register, approve, deploy.

Runs in the SDK's virtual environment.
Usage: housing_pipeline_v3.py PREPROCESS-IMAGE TRAIN-IMAGE SERVE-IMAGE BATCH-SCORE-IMAGE
"""

import json
import os
import sys
from typing import Any

from sagemaker.core.parameter import ContinuousParameter
from sagemaker.core.processing import Processor
from sagemaker.core.resources import Endpoint, EndpointConfig, Model, ModelPackage
from sagemaker.core.shapes import (
    ContainerDefinition,
    MetricDefinition,
    OutputDataConfig,
    ProcessingInput,
    ProcessingOutput,
    ProcessingS3Input,
    ProcessingS3Output,
    ProductionVariant,
)
from sagemaker.core.workflow.conditions import ConditionLessThanOrEqualTo
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.parameters import ParameterFloat, ParameterInteger
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import ProcessingStep, TrainingStep, TuningStep
from sagemaker.serve import ModelBuilder
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData
from sagemaker.train.tuner import HyperparameterTuner

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

preprocess_image, train_image, serve_image, batch_score_image = sys.argv[1:]
poll_quickly()
session = PipelineSession()
bucket = session.default_bucket()
role, instance_type = os.environ["SAGEMAKER_ROLE"], "ml.m5.large"
mse_limit = ParameterFloat(name="MaxMse", default_value=8000.0)
host_count = ParameterInteger(name="Hosts", default_value=2)


def make_processor(image: str, count: Any = 1) -> Processor:
    return Processor(role, image, count, instance_type, sagemaker_session=session)


def make_input(name: str, uri: Any, **members: str) -> ProcessingInput:
    path = str(Layout().processing(name))
    source = ProcessingS3Input(s3_uri=uri, local_path=path, s3_data_type="S3Prefix", s3_input_mode="File", **members)
    return ProcessingInput(input_name=name, s3_input=source)


def make_output(name: str, folder: str = "") -> ProcessingOutput:
    uri = Join("/", [f"s3://{bucket}/housing-v3", ExecutionVariables.PIPELINE_EXECUTION_ID, name])
    path = str(Layout().processing(folder or name))
    target = ProcessingS3Output(s3_uri=uri, local_path=path, s3_upload_mode="EndOfJob")
    return ProcessingOutput(output_name=name, s3_output=target)


def get_output(step: ProcessingStep, name: str) -> Any:
    return step.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri


raw = ProcessingStep(
    name="Raw",
    step_args=make_processor(preprocess_image).run(
        arguments=["dataset", "diabetes", "--shards", "2"], outputs=[make_output("raw", "output")]
    ),
)
shards = make_input("input", get_output(raw, "raw"), s3_data_distribution_type="ShardedByS3Key")
scale = ProcessingStep(
    name="Scale",
    step_args=make_processor(preprocess_image, host_count).run(
        inputs=[shards], outputs=[make_output("train"), make_output("test")]
    ),
)
channels = [InputData(channel_name=name, data_source=get_output(scale, name)) for name in ("train", "test")]
trainer = ModelTrainer(
    training_image=train_image,
    role=role,
    compute=Compute(instance_type=instance_type, instance_count=1),
    hyperparameters={"epochs": 5, "batch_size": 32},
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/housing-v3"),
    sagemaker_session=session,
).with_metric_definitions([MetricDefinition(name="val_loss", regex=r" val_loss: ([0-9\.]+)")])
training = TrainingStep(name="Train", step_args=trainer.train(channels))
tuner = HyperparameterTuner(
    trainer,
    "val_loss",
    {"learning_rate": ContinuousParameter(0.001, 0.1, scaling_type="Logarithmic")},
    metric_definitions=[{"Name": "val_loss", "Regex": r" val_loss: ([0-9\.]+)"}],
    objective_type="Minimize",
    max_jobs=2,
    max_parallel_jobs=2,
)
tuning = TuningStep(name="Tune", step_args=tuner.tune(inputs=channels), depends_on=[training])
best_model = tuning.get_top_model_s3_uri(0, bucket, "housing-v3")
report = PropertyFile(name="Report", output_name="batch", path="report.json")
score = ProcessingStep(
    name="Score",
    step_args=make_processor(batch_score_image).run(
        inputs=[make_input("model", best_model), make_input("test", get_output(scale, "test"))],
        outputs=[make_output("batch")],
    ),
    property_files=[report],
)
builder = ModelBuilder(image_uri=serve_image, s3_model_data_url=best_model, role_arn=role, sagemaker_session=session)
register = ModelStep(
    name="Register",
    step_args=builder.register(
        model_package_group_name="housing-v3",
        content_types=["application/json"],
        response_types=["application/json"],
        inference_instances=[instance_type],
        transform_instances=[instance_type],
    ),
)
mse = JsonGet(step_name="Score", property_file=report, json_path="mse")
check_mse = ConditionStep(
    name="IsGood",
    conditions=[ConditionLessThanOrEqualTo(left=mse, right=mse_limit)],
    if_steps=[register],
    else_steps=[FailStep(name="Bad", error_message=Join(" ", ["the MSE exceeds", mse_limit]))],
)
pipeline = Pipeline(
    name="housing-v3",
    parameters=[mse_limit, host_count],
    steps=[raw, scale, training, tuning, score, check_mse],
    sagemaker_session=session,
)
pipeline.upsert(role)
execution = pipeline.start()
execution.wait(delay=1, max_attempts=600)
statuses = {step["StepName"]: step["StepStatus"] for step in execution.list_steps()}

(package_summary,) = ModelPackage.get_all(model_package_group_name="housing-v3")
package = ModelPackage.get(package_summary.model_package_arn)
status = package.model_approval_status
package.update(model_approval_status="Approved")
container = ContainerDefinition(model_package_name=package_summary.model_package_arn)
Model.create(model_name="housing-v3", primary_container=container, execution_role_arn=role)
variant = ProductionVariant(
    variant_name="main", model_name="housing-v3", instance_type=instance_type, initial_instance_count=1
)
EndpointConfig.create(endpoint_config_name="housing-v3", production_variants=[variant])
endpoint = Endpoint.create(endpoint_name="housing-v3", endpoint_config_name="housing-v3")
endpoint.wait_for_status("InService")
body = json.dumps({"instances": [[0.0] * 10]})
response = endpoint.invoke(body=body, content_type="application/json", accept="application/json")
predictions = json.loads(response.body.read())["predictions"]
endpoint.delete()
print()
print(json.dumps({"steps": statuses, "status": status, "predictions": len(predictions)}))
