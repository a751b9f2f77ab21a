"""Runs a pipeline of the SageMaker SDK v3: training, ForEach, a callback, triggers, a registration, a cleanup.

Runs in the SDK's virtual environment. Usage: pipeline_runs_v3.py TRAIN-IMAGE SERVE-IMAGE BUCKET QUEUE-URL
"""

import json
import os
import sys
import threading
import time
from typing import Any

import boto3
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.core.workflow.functions import JsonGet
from sagemaker.core.workflow.parameters import ParameterInteger, ParameterString
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.callback_step import CallbackOutput, CallbackOutputTypeEnum, CallbackStep
from sagemaker.mlops.workflow.cleanup_step import CleanupStep, S3CleanupSource
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.for_each_step import CurrentItem, ForEachStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.step_dependency import StepDependency, TriggerCondition
from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, TrainingStep
from sagemaker.serve import ModelBuilder
from sagemaker.train.configs import Compute, InputData
from sagemaker.train.model_trainer import ModelTrainer

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

train_image, serve_image, bucket, queue_url = sys.argv[1:]
poll_quickly()
sess = PipelineSession(default_bucket=bucket)
client = boto3.client("sagemaker")
role, instance_type, base_uri = os.environ["SAGEMAKER_ROLE"], "ml.m5.large", f"s3://{bucket}/pipelines-v3"
output_folder = str(Layout().processing("out"))
input_folder = str(Layout().processing("rows"))
accuracy = ParameterString("Accuracy", default_value="0.9")
count = ParameterInteger("Count", default_value=1)


def make_processing_step(name: str, script: str, *arguments: object, **options: object) -> ProcessingStep:
    """Return a step that runs a shell script; its output is the folder `out`."""
    processor = Processor(
        role=role,
        image_uri=serve_image,
        instance_count=count,
        instance_type=instance_type,
        entrypoint=["/bin/sh", "-ec", script],
        sagemaker_session=sess,
    )
    s3_output = ProcessingS3Output(s3_uri=f"{base_uri}/{name}", local_path=output_folder, s3_upload_mode="EndOfJob")
    source = ProcessingS3Input(
        s3_uri=f"{base_uri}/input", local_path=input_folder, s3_data_type="S3Prefix", s3_input_mode="File"
    )
    step_args = processor.run(
        inputs=[ProcessingInput(input_name="rows", s3_input=source)],
        outputs=[ProcessingOutput(output_name="out", s3_output=s3_output)],
        arguments=list(arguments) or None,
    )
    return ProcessingStep(name=name, step_args=step_args, **options)


# --- training, and a metric in a property file
trainer = ModelTrainer(
    training_image=train_image,
    role=role,
    compute=Compute(instance_type=instance_type, instance_count=1),
    base_job_name="pipelines-v3",
    sagemaker_session=sess,
)
training = TrainingStep(
    name="Train",
    step_args=trainer.train(input_data_config=[InputData(channel_name="model", data_source=f"s3://{bucket}/bundle")]),
    cache_config=CacheConfig(enable_caching=True, expire_after="P1D"),
)
metrics = PropertyFile(name="Metrics", output_name="out", path="metrics.json")
evaluation = make_processing_step(
    "Evaluate",
    f'echo "{{\\"accuracy\\": {{\\"value\\": $0}}}}" > {output_folder}/metrics.json',
    accuracy,
    property_files=[metrics],
    depends_on=[training],
)

# --- one job per item, at most two at a time
paint_each = ForEachStep(
    name="Each",
    iterable_items=["red", "green", "blue"],
    max_concurrency=2,
    for_each_body=[make_processing_step("Paint", f"echo $0 > {output_folder}/$0.txt", CurrentItem())],
)

# --- an answer of a person, or of another system
approval = CallbackStep(
    name="Ask",
    sqs_queue_url=queue_url,
    inputs={"accuracy": JsonGet(step_name="Evaluate", property_file=metrics, json_path="accuracy.value")},
    outputs=[CallbackOutput("reviewer", CallbackOutputTypeEnum.String)],
)

# --- a registered model
builder = ModelBuilder(
    image_uri=serve_image,
    s3_model_data_url=training.properties.ModelArtifacts.S3ModelArtifacts,
    role_arn=role,
    sagemaker_session=sess,
)
registration = ModelStep(
    name="Register",
    step_args=builder.register(
        model_package_group_name="pipelines-v3",
        content_types=["text/csv"],
        response_types=["text/csv"],
        inference_instances=[instance_type],
        transform_instances=[instance_type],
        approval_status="Approved",
        customer_metadata_properties={"reviewer": approval.properties.Outputs["reviewer"]},
    ),
)
condition = ConditionStep(
    name="IsGood",
    conditions=[
        ConditionGreaterThanOrEqualTo(
            left=JsonGet(step_name="Evaluate", property_file=metrics, json_path="accuracy.value"), right=0.8
        )
    ],
    if_steps=[approval, registration],
    else_steps=[],
)

# --- a step that fails without an object, and a step that runs only if the first step has failed
fragile = make_processing_step(
    "Fragile", f"cat {input_folder}/ready && cp {input_folder}/ready {output_folder}", depends_on=[paint_each]
)
alarm = make_processing_step(
    "Alarm", f"echo failed > {output_folder}/alarm.txt", depends_on=[StepDependency(fragile, TriggerCondition.FAILED)]
)
cleanup = CleanupStep(
    name="Clean",
    s3_sources=[S3CleanupSource(evaluation, s3_uris=[f"{base_uri}/Evaluate/metrics.json"])],
    depends_on=[condition],
)
pipeline = Pipeline(
    name="pipelines-v3",
    parameters=[accuracy, count],
    steps=[training, evaluation, paint_each, condition, fragile, alarm, cleanup],
    sagemaker_session=sess,
)


def answer_callbacks() -> None:
    """Answer the messages of the callback step."""
    sqs = boto3.client("sqs")
    while True:
        for message in sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=1).get("Messages", []):
            body = json.loads(message["Body"])
            reviewer = f"reviewer of {body['arguments']['accuracy']}"
            client.send_pipeline_execution_step_success(
                CallbackToken=body["token"], OutputParameters=[{"Name": "reviewer", "Value": reviewer}]
            )
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])


def wait_for_execution(execution: Any) -> dict[str, str]:
    """Wait for the end of an execution; return the status of each step by its name, and of the execution by "".

    `execution.wait` of the SDK waits only for Succeeded and Failed, so it would not notice CompletedWithFailures.
    """
    while execution.describe()["PipelineExecutionStatus"] in ("Executing", "Stopping"):
        time.sleep(0.5)
    statuses = {
        step["StepName"]: step["StepStatus"] + (" from cache" if "CacheHitResult" in step else "")
        for step in execution.list_steps()
    }
    return {**statuses, "": execution.describe()["PipelineExecutionStatus"]}


def list_keys(prefix: str) -> list[str]:
    objects = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"pipelines-v3/{prefix}")
    return sorted(item["Key"].removeprefix("pipelines-v3/") for item in objects.get("Contents", []))


def put_rows(name: str) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=f"pipelines-v3/input/{name}", Body=b"1,2,3\n")


threading.Thread(target=answer_callbacks, daemon=True).start()
put_rows("rows.csv")
pipeline.upsert(role)
results: dict[str, object] = {}
first_execution = pipeline.start()
results["first"] = wait_for_execution(first_execution)
results["painted"] = list_keys("Paint")
results["cleaned"] = list_keys("Evaluate")
package = client.list_model_packages(ModelPackageGroupName="pipelines-v3")["ModelPackageSummaryList"][0]
description = client.describe_model_package(ModelPackageName=package["ModelPackageArn"])
results["reviewer"] = description["CustomerMetadataProperties"]

# --- other data: the step Fragile succeeds, and the result of the step Train comes from the cache
put_rows("ready")
results["second"] = wait_for_execution(pipeline.start(parameters={"Accuracy": "0.5"}))
pipeline.delete()
print()
print(json.dumps(results))
