"""Creates and updates a pipeline with the SageMaker SDK v2: all types of steps and expressions that the SDK generates.

Runs in the SDK's virtual environment. Usage: pipelines_v2.py BUCKET
"""

import json
import os
import sys
from pathlib import Path

from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput, TransformInput
from sagemaker.lambda_helper import Lambda
from sagemaker.model import Model
from sagemaker.processing import ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.transformer import Transformer
from sagemaker.tuner import HyperparameterTuner, IntegerParameter
from sagemaker.workflow.callback_step import CallbackOutput, CallbackOutputTypeEnum, CallbackStep
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import (
    ConditionEquals,
    ConditionGreaterThan,
    ConditionGreaterThanOrEqualTo,
    ConditionIn,
    ConditionLessThan,
    ConditionLessThanOrEqualTo,
    ConditionNot,
    ConditionOr,
)
from sagemaker.workflow.execution_variables import ExecutionVariables
from sagemaker.workflow.fail_step import FailStep
from sagemaker.workflow.function_step import step
from sagemaker.workflow.functions import Join, JsonGet
from sagemaker.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parallelism_config import ParallelismConfiguration
from sagemaker.workflow.parameters import ParameterBoolean, ParameterFloat, ParameterInteger, ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.properties import PropertyFile
from sagemaker.workflow.retry import (
    SageMakerJobExceptionTypeEnum,
    SageMakerJobStepRetryPolicy,
    StepExceptionTypeEnum,
    StepRetryPolicy,
)
from sagemaker.workflow.steps import CacheConfig, ProcessingStep, TrainingStep, TransformStep, TuningStep

from microjobs.contract import Layout

(bucket,) = sys.argv[1:]
session = PipelineSession(default_bucket=bucket)
role, image, instance_type = os.environ["SAGEMAKER_ROLE"], "image:dev", "ml.m5.large"
program = Path("program.py")
program.write_text("print('hello')\n")
layout = Layout()

instance_count = ParameterInteger("InstanceCount", 1)
threshold = ParameterFloat("Threshold", 0.5)
approval = ParameterString("Approval", "Approved", enum_values=["Approved", "Rejected"])
verbose = ParameterBoolean("Verbose", default_value=False)
cache = CacheConfig(enable_caching=True, expire_after="P30D")
retry_policies = [
    StepRetryPolicy([StepExceptionTypeEnum.SERVICE_FAULT, StepExceptionTypeEnum.THROTTLING], expire_after_mins=5),
    SageMakerJobStepRetryPolicy(
        exception_types=[SageMakerJobExceptionTypeEnum.RESOURCE_LIMIT],
        failure_reason_types=[SageMakerJobExceptionTypeEnum.INTERNAL_ERROR],
        max_attempts=3,
    ),
]

# --- processing with a property file
processor = ScriptProcessor(
    role=role,
    image_uri=image,
    command=["python3"],
    instance_count=instance_count,
    instance_type=instance_type,
    sagemaker_session=session,
    env={"VERBOSE": verbose.to_string()},
)
report = PropertyFile("Report", "metrics", "report.json")
prepare = ProcessingStep(
    "Prepare",
    step_args=processor.run(
        code=str(program),
        inputs=[
            ProcessingInput(
                Join("/", ["s3:/", bucket, ExecutionVariables.PIPELINE_EXECUTION_ID]), str(layout.processing("in"))
            )
        ],
        outputs=[
            ProcessingOutput(output_name=name, source=str(layout.processing(name))) for name in ("train", "metrics")
        ],
        arguments=["--threshold", threshold.to_string()],
    ),
    property_files=[report],
    cache_config=cache,
    retry_policies=retry_policies,
)
train_uri = prepare.properties.ProcessingOutputConfig.Outputs["train"].S3Output.S3Uri

# --- training and tuning
estimator = Estimator(
    image,
    role,
    instance_count,
    instance_type,
    sagemaker_session=session,
    hyperparameters={"epochs": instance_count, "rate": 0.1},
    metric_definitions=[{"Name": "loss", "Regex": "loss: ([0-9.]+)"}],
    entry_point=str(program),
)
channels = {"train": TrainingInput(train_uri, content_type="text/csv")}
train = TrainingStep("Train", step_args=estimator.fit(channels), cache_config=cache, retry_policies=retry_policies)
tuner = HyperparameterTuner(
    estimator, "loss", {"n": IntegerParameter(1, 9)}, max_jobs=2, max_parallel_jobs=instance_count
)
tune = TuningStep("Tune", step_args=tuner.fit(channels), depends_on=[train])

# --- a model whose archive is repacked with a program; a model package; a transform job
model = Model(
    image,
    train.properties.ModelArtifacts.S3ModelArtifacts,
    role,
    entry_point=str(program),
    sagemaker_session=session,
    name="pipelines-v2",
)
create = ModelStep("Create", step_args=model.create(instance_type=instance_type), retry_policies=retry_policies[:1])
tuned_model = Model(image, tune.get_top_model_s3_uri(0, bucket, "models"), role, sagemaker_session=session)
register = ModelStep(
    "Register",
    step_args=tuned_model.register(
        content_types=["text/csv"],
        response_types=["text/csv"],
        inference_instances=[instance_type],
        transform_instances=[instance_type],
        model_package_group_name="pipelines-v2",
        approval_status=approval,
    ),
)
transformer = Transformer(
    create.properties.ModelName, 1, instance_type, output_path=f"s3://{bucket}/out", sagemaker_session=session
)
transform = TransformStep(
    "Transform", step_args=transformer.transform(data=TransformInput(train_uri).data, content_type="text/csv")
)

# --- functions: Lambda, a queue, and Python functions as steps
function = LambdaStep(
    "Function",
    lambda_func=Lambda(function_arn=f"arn:aws:lambda:us-east-1:{'0' * 12}:function:f"),
    inputs={"model": create.properties.ModelName, "rate": threshold},
    outputs=[LambdaOutput("size", LambdaOutputTypeEnum.Integer)],
    cache_config=cache,
)
callback = CallbackStep(
    "Callback",
    sqs_queue_url=f"https://sqs.us-east-1.amazonaws.com/{'0' * 12}/queue",
    inputs={"size": function.properties.Outputs["size"]},
    outputs=[CallbackOutput("answer", CallbackOutputTypeEnum.String)],
    depends_on=[create, "Tune"],
)


@step(name="Add", instance_type=instance_type, image_uri=image, role=role)  # type: ignore[untyped-decorator]
def add(left: int, right: int) -> int:
    return left + right


@step(name="Double", instance_type=instance_type, image_uri=image, role=role, retry_policies=retry_policies)  # type: ignore[untyped-decorator]
def double(value: int) -> dict[str, int]:
    return {"value": 2 * value}


double_step = double(add(instance_count, 3))

# --- conditions
loss = JsonGet("Prepare", report, "metrics.loss.value")
conditions = [
    ConditionLessThan(loss, threshold),
    ConditionOr([ConditionEquals(approval, "Approved"), ConditionNot(ConditionGreaterThan(loss, 1))]),
    ConditionIn(callback.properties.Outputs["answer"], ["yes", approval]),
    ConditionLessThanOrEqualTo(function.properties.Outputs["size"], 3),
    ConditionGreaterThanOrEqualTo(double_step["value"], 8),
]
fail = FailStep("Stop", error_message=Join(" ", ["The loss is above", threshold.to_string()]))
nested_condition = ConditionStep("Nested", conditions=conditions[:1], if_steps=[transform], else_steps=[])
condition = ConditionStep("Check", conditions=conditions, if_steps=[register, nested_condition], else_steps=[fail])

pipeline = Pipeline(
    "pipelines-v2",
    parameters=[instance_count, threshold, approval, verbose],
    steps=[prepare, train, tune, create, function, callback, double_step, condition],
    sagemaker_session=session,
)
tags = [{"Key": "team", "Value": "a"}]
pipeline.create(role, description="first", tags=tags, parallelism_config=ParallelismConfiguration(2))
definition = json.loads(pipeline.describe()["PipelineDefinition"])
pipeline.parameters = [*pipeline.parameters, ParameterString("Unused", "x")]
response = pipeline.upsert(role, description="second", tags=[{"Key": "stage", "Value": "b"}])
description = pipeline.describe()
print(
    json.dumps(
        {
            "definition": definition,
            "version": response["PipelineVersionId"],
            "description": description["PipelineDescription"],
            "parallelism": description["ParallelismConfiguration"],
            "tags": sorted(
                tag["Key"] for tag in session.sagemaker_client.list_tags(ResourceArn=description["PipelineArn"])["Tags"]
            ),
            "deleted": pipeline.delete()["PipelineArn"].rpartition("/")[2],
        }
    )
)
