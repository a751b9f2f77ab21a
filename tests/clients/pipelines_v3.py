"""Creates a pipeline with the SageMaker SDK v3: types of steps that the SDK v2 also has, and types that the v2 lacks.

Runs in the SDK's virtual environment. Usage: pipelines_v3.py BUCKET
"""

import json
import os
import sys
from pathlib import Path

from sagemaker.core.parameter import IntegerParameter
from sagemaker.core.processing import ScriptProcessor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
from sagemaker.core.transformer import Transformer
from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo, ConditionLessThan
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.callback_step import CallbackOutput, CallbackOutputTypeEnum, CallbackStep
from sagemaker.mlops.workflow.cleanup_step import CleanupStep, S3CleanupSource
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.endpoint_step import EndpointConfigStep, EndpointStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.for_each_step import (
    CurrentItem,
    ForEachSelector,
    ForEachStep,
    IterationOutput,
)
from sagemaker.mlops.workflow.function_step import step
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.parallelism_config import ParallelismConfiguration
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.retry import StepExceptionTypeEnum, StepRetryPolicy
from sagemaker.mlops.workflow.step_dependency import StepDependency, TriggerCondition
from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, TrainingStep, TransformStep, TuningStep
from sagemaker.serve import ModelBuilder
from sagemaker.train.configs import Compute, InputData, OutputDataConfig, SourceCode
from sagemaker.train.model_trainer import ModelTrainer
from sagemaker.train.tuner import HyperparameterTuner

from microjobs.contract import Layout

(bucket,) = sys.argv[1:]
session = PipelineSession(default_bucket=bucket)
role, image, instance_type = os.environ["SAGEMAKER_ROLE"], "image:dev", "ml.m5.large"
source = Path("source")
source.mkdir()
(source / "program.py").write_text("print('hello')\n")
layout = Layout()

instance_count = ParameterInteger("InstanceCount", 1)
threshold = ParameterFloat("Threshold", 0.5)
items = ParameterString("Items", '[{"rate": 0.1}, {"rate": 0.2}]')
cache = CacheConfig(enable_caching=True, expire_after="T12H")
retry_policies = [StepRetryPolicy([StepExceptionTypeEnum.SERVICE_FAULT], max_attempts=3)]


def make_output(name: str) -> ProcessingOutput:
    uri = Join("/", ["s3:/", bucket, ExecutionVariables.PIPELINE_EXECUTION_ID, name])
    target = ProcessingS3Output(s3_uri=uri, local_path=str(layout.processing(name)), s3_upload_mode="EndOfJob")
    return ProcessingOutput(output_name=name, s3_output=target)


def make_trainer(**hyperparameters: object) -> ModelTrainer:
    return ModelTrainer(
        training_image=image,
        role=role,
        sagemaker_session=session,
        compute=Compute(instance_type=instance_type, instance_count=instance_count),
        source_code=SourceCode(source_dir=str(source), entry_script="program.py"),
        output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/models"),
        hyperparameters=hyperparameters,
    )


# --- processing, training, tuning
processor = ScriptProcessor(
    role=role,
    image_uri=image,
    command=["python3"],
    instance_count=instance_count,
    instance_type=instance_type,
    sagemaker_session=session,
)
s3_input = ProcessingS3Input(
    s3_uri=f"s3://{bucket}/in", local_path=str(layout.processing("in")), s3_data_type="S3Prefix", s3_input_mode="File"
)
report = PropertyFile("Report", "metrics", "report.json")
prepare = ProcessingStep(
    "Prepare",
    step_args=processor.run(
        code=str(source / "program.py"),
        inputs=[ProcessingInput(input_name="in", s3_input=s3_input)],
        outputs=[make_output("train"), make_output("metrics")],
        arguments=["--threshold", threshold.to_string()],
    ),
    property_files=[report],
    cache_config=cache,
    retry_policies=retry_policies,
)
train_uri = prepare.properties.ProcessingOutputConfig.Outputs["train"].S3Output.S3Uri
channels = [InputData(channel_name="train", data_source=train_uri)]
trainer = make_trainer(epochs=2, threshold=threshold.to_string())
train = TrainingStep("Train", step_args=trainer.train(input_data_config=channels), cache_config=cache)
tuner = HyperparameterTuner(
    trainer,
    "loss",
    {"n": IntegerParameter(1, 9)},
    metric_definitions=[{"Name": "loss", "Regex": "loss: ([0-9.]+)"}],
    max_jobs=2,
    max_parallel_jobs=2,
)
tune = TuningStep("Tune", step_args=tuner.tune(inputs=channels), depends_on=[train])

# --- a model, a model package, an endpoint, and a transform job
archive = train.properties.ModelArtifacts.S3ModelArtifacts


def make_builder() -> ModelBuilder:
    return ModelBuilder(
        image_uri=image,
        s3_model_data_url=archive,
        role_arn=role,
        sagemaker_session=session,
        instance_type=instance_type,
    )


create = ModelStep("Create", step_args=make_builder().build(model_name="pipelines-v3"))
register = ModelStep(
    "Register",
    step_args=make_builder().register(
        model_package_group_name="pipelines-v3",
        content_types=["text/csv"],
        response_types=["text/csv"],
        inference_instances=[instance_type],
        transform_instances=[instance_type],
        approval_status="PendingManualApproval",
    ),
)
variant = {
    "VariantName": "all",
    "ModelName": create.properties.ModelName,
    "InitialInstanceCount": instance_count,
    "InstanceType": instance_type,
}
configure = EndpointConfigStep(
    "Configure", step_args=session.create_endpoint_config(name="pipelines-v3", production_variants=[variant])
)
deploy = EndpointStep(
    "Deploy",
    step_args=session.create_endpoint(
        endpoint_name="pipelines-v3", config_name=configure.properties.EndpointConfigName
    ),
)
transformer = Transformer(
    model_name=create.properties.ModelName,
    instance_count=1,
    instance_type=instance_type,
    output_path=f"s3://{bucket}/out",
    sagemaker_session=session,
)
transform = TransformStep("Transform", step_args=transformer.transform(data=train_uri, content_type="text/csv"))

# --- a loop, a function, dependencies on failures, and the deletion of outputs
candidate = TrainingStep(
    "Candidate", step_args=make_trainer(rate=CurrentItem().rate).train(input_data_config=channels), cache_config=cache
)
selector = ForEachSelector("MaxBy", IterationOutput(candidate).FinalMetricDataList["score"].Value)
loop = ForEachStep("Loop", iterable_items=items, max_concurrency=2, for_each_body=[candidate], selector=selector)


@step(name="Compare", instance_type=instance_type, image_uri=image, role=role)  # type: ignore[untyped-decorator]
def compare(uri: str, count: int) -> float:
    return len(uri) / count


compare_step = compare(archive, loop.properties.SucceededStepCount)
notify = CallbackStep(
    "Notify",
    sqs_queue_url=f"https://sqs.us-east-1.amazonaws.com/{'0' * 12}/queue",
    inputs={
        "status": loop.properties.Status,
        "first": loop.properties.IterationOutputs[0].Candidate.TrainingJobName,
        "best": loop.properties.Selected.ModelArtifacts.S3ModelArtifacts,
    },
    outputs=[CallbackOutput("answer", CallbackOutputTypeEnum.String)],
    depends_on=[StepDependency(train, TriggerCondition.FAILED), StepDependency(loop, TriggerCondition.ANY)],
)
clean = CleanupStep("Clean", s3_sources=[S3CleanupSource(train)], depends_on=[deploy])
condition = ConditionStep(
    "Check",
    conditions=[
        ConditionLessThan(JsonGet("Prepare", report, "metrics['loss'].value"), threshold),
        ConditionGreaterThanOrEqualTo(compare_step, 1.5),
    ],
    if_steps=[register],
    else_steps=[FailStep("Stop", error_message=Join(" ", ["above", threshold.to_string()]))],
)

pipeline = Pipeline(
    "pipelines-v3",
    parameters=[instance_count, threshold, items],
    steps=[prepare, train, tune, create, configure, deploy, transform, loop, compare_step, notify, clean, condition],
    sagemaker_session=session,
)
pipeline.upsert(role, description="first", parallelism_config=ParallelismConfiguration(2))
definition = json.loads(pipeline.describe()["PipelineDefinition"])
pipeline.upsert(role, description="second")
versions = pipeline.list_pipeline_versions()["PipelineVersionSummaries"]
print(
    json.dumps(
        {
            "definition": definition,
            "versions": [version["PipelineVersionId"] for version in versions],
            "description": pipeline.describe(pipeline_version_id=1)["PipelineDescription"],
            "deleted": pipeline.delete()["PipelineArn"].rpartition("/")[2],
        }
    )
)
