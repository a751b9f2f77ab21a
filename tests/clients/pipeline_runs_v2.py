"""Runs pipelines of the SageMaker SDK v2: many types of steps, parameters, a condition, a cache, a retry, a deployment.

Runs in the SDK's virtual environment. Usage: pipeline_runs_v2.py TRAIN-IMAGE SERVE-IMAGE BUCKET
"""

import json
import os
import sys
from typing import Any

from sagemaker import ModelPackage, Session
from sagemaker.deserializers import CSVDeserializer
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.lambda_helper import Lambda
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.processing import ProcessingInput, ProcessingOutput, Processor
from sagemaker.serializers import CSVSerializer
from sagemaker.transformer import Transformer
from sagemaker.tuner import HyperparameterTuner, IntegerParameter
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionLessThanOrEqualTo
from sagemaker.workflow.endpoint_step import EndpointConfigStep, EndpointStep
from sagemaker.workflow.fail_step import FailStep
from sagemaker.workflow.functions import Join, JsonGet
from sagemaker.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterFloat, ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.properties import PropertyFile
from sagemaker.workflow.selective_execution_config import SelectiveExecutionConfig
from sagemaker.workflow.steps import CacheConfig, ProcessingStep, TrainingStep, TransformStep, TuningStep

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

train_image, serve_image, bucket = sys.argv[1:]
poll_quickly()
sess, plain_session = PipelineSession(default_bucket=bucket), Session(default_bucket=bucket)
role, instance_type, base_uri = os.environ["SAGEMAKER_ROLE"], "ml.m5.large", f"s3://{bucket}/pipelines-v2"
input_folder, output_folder = (str(Layout().processing(name)) for name in ("rows", "out"))
cache = CacheConfig(enable_caching=True, expire_after="PT1H")

mse = ParameterString("Mse", default_value="0.25")
mse_limit = ParameterFloat("Limit", default_value=0.5)

# --- processing: the output has the metric for the condition
processor = Processor(
    role,
    serve_image,
    1,
    instance_type,
    [
        "/bin/sh",
        "-c",
        f'cp {input_folder}/* {output_folder} && echo "{{\\"mse\\": $0}}" > {output_folder}/metrics.json',
    ],
    sagemaker_session=sess,
)
metrics = PropertyFile("Metrics", "out", "metrics.json")
prepare = ProcessingStep(
    "Prepare",
    step_args=processor.run(
        inputs=[ProcessingInput(f"{base_uri}/rows.csv", input_folder)],
        outputs=[ProcessingOutput(output_name="out", source=output_folder)],
        arguments=[mse],
    ),
    property_files=[metrics],
    cache_config=cache,
)
prepared_uri = prepare.properties.ProcessingOutputConfig.Outputs["out"].S3Output.S3Uri

# --- training and tuning
estimator = Estimator(
    train_image,
    role,
    1,
    instance_type,
    sagemaker_session=sess,
    output_path=f"{base_uri}/models",
    metric_definitions=[{"Name": "loss", "Regex": "loss: ([0-9.]+)"}],
)
channels = {"model": TrainingInput(f"s3://{bucket}/bundle"), "rows": TrainingInput(prepared_uri)}
training = TrainingStep("Train", step_args=estimator.fit(channels), cache_config=cache)
tuner = HyperparameterTuner(
    estimator,
    "loss",
    {"n": IntegerParameter(1, 9)},
    estimator.metric_definitions,
    objective_type="Minimize",
    max_jobs=2,
)
tuning = TuningStep("Tune", step_args=tuner.fit(channels), depends_on=[training])

# --- a function of the user's configuration
double = LambdaStep(
    "Double",
    Lambda(function_arn="arn:aws:lambda:us-east-1:000000000000:function:double"),
    inputs={"value": mse_limit, "job": training.properties.TrainingJobName},
    outputs=[LambdaOutput("doubled", LambdaOutputTypeEnum.Float)],
)

# --- with a good metric: the model is registered, created, applied to a file, and deployed
model = Model(serve_image, tuning.get_top_model_s3_uri(0, bucket, "pipelines-v2/models"), role, sagemaker_session=sess)
register = ModelStep(
    "Register",
    model.register(
        content_types=["text/csv"],
        response_types=["text/csv"],
        inference_instances=[instance_type],
        transform_instances=[instance_type],
        model_package_group_name="pipelines-v2",
        approval_status="PendingManualApproval",
    ),
    depends_on=[tuning],
)
create = ModelStep("Create", model.create(instance_type), depends_on=[tuning])
transformer = Transformer(
    create.properties.ModelName,
    1,
    instance_type,
    output_path=Join("/", [base_uri, "transformed"]),
    accept="text/csv",
    sagemaker_session=sess,
)
transform = TransformStep(
    "Transform",
    step_args=transformer.transform(Join("/", [prepared_uri, "rows.csv"]), content_type="text/csv", split_type="Line"),
)
config = EndpointConfigStep(
    "Config", sess.create_endpoint_config("pipelines-v2", create.properties.ModelName, 1, instance_type)
)
endpoint = EndpointStep("Endpoint", sess.create_endpoint("pipelines-v2", config.properties.EndpointConfigName))
fail = FailStep("Bad", error_message=Join(" ", ["mse", JsonGet("Prepare", metrics, "mse"), "exceeds", mse_limit]))
condition = ConditionStep(
    "IsGood",
    conditions=[ConditionLessThanOrEqualTo(JsonGet("Prepare", metrics, "mse"), mse_limit)],
    if_steps=[register, create, transform, config, endpoint],
    else_steps=[fail],
    depends_on=[double],
)
pipeline = Pipeline(
    "pipelines-v2",
    parameters=[mse, mse_limit],
    steps=[prepare, training, tuning, double, condition],
    sagemaker_session=sess,
)


def run_pipeline(**arguments: object) -> dict[str, str]:
    """Run the pipeline to its end; return the statuses that `wait_for_execution` returns."""
    return wait_for_execution(pipeline.start(**arguments))


def wait_for_execution(execution: Any) -> dict[str, str]:
    """Wait for the end of an execution; return the status of each step by its name, and of the execution by ""."""
    try:
        execution.wait(delay=1, max_attempts=600)
    except Exception as error:  # the waiter raises an error if the execution fails
        print("waiter:", error)
    steps = {step["StepName"]: step for step in execution.list_steps()}
    statuses = {
        name: step["StepStatus"] + (" from cache" if "CacheHitResult" in step else "") for name, step in steps.items()
    }
    return {**statuses, "": execution.describe()["PipelineExecutionStatus"]}


client = plain_session.sagemaker_client
plain_session.upload_string_as_file_body("1,2,3\n4,5,6\n", bucket, "pipelines-v2/rows.csv")
pipeline.upsert(role)
pipeline.upsert(role)  # the second call updates the pipeline
results: dict[str, object] = {}
first_execution = pipeline.start()
results["first"] = wait_for_execution(first_execution)
results["transformed"] = plain_session.read_s3_file(bucket, "pipelines-v2/transformed/rows.csv.out")
predictor = Predictor("pipelines-v2", plain_session, CSVSerializer(), CSVDeserializer())
results["predicted"] = predictor.predict([[1, 2, 3]])

# --- other parameters: the cache has no result for another metric, and the condition is false
client.delete_endpoint(EndpointName="pipelines-v2")
results["bad"] = run_pipeline(parameters={"Mse": "0.75"})

# --- only one step, with the results of the first execution
selection = SelectiveExecutionConfig(selected_steps=["Train"], source_pipeline_execution_arn=first_execution.arn)
results["selected"] = run_pipeline(selective_execution_config=selection)

# --- a step that fails until an object exists: the retry continues from this step
flags_uri = f"s3://{bucket}/pipelines-v2/flags/"
plain_session.upload_string_as_file_body("no", bucket, "pipelines-v2/flags/no")
check_processor = Processor(
    role, serve_image, 1, instance_type, ["/bin/sh", "-c", f"test -e {input_folder}/ready"], sagemaker_session=sess
)
check_step = ProcessingStep(
    "Check", step_args=check_processor.run(inputs=[ProcessingInput(flags_uri, input_folder)]), depends_on=["Before"]
)
first_step = ProcessingStep(
    "Before",
    step_args=Processor(role, serve_image, 1, instance_type, ["/bin/true"], sagemaker_session=sess).run(),
)
retried_pipeline = Pipeline("pipelines-v2-retried", steps=[first_step, check_step], sagemaker_session=sess)
retried_pipeline.upsert(role)
execution = retried_pipeline.start()
results["failed"] = wait_for_execution(execution)
first_job_arn = execution.list_steps()[-1]["Metadata"]["ProcessingJob"]["Arn"]
plain_session.upload_string_as_file_body("yes", bucket, "pipelines-v2/flags/ready")
client.retry_pipeline_execution(PipelineExecutionArn=execution.arn)
results["retried"] = wait_for_execution(execution)
results["keptFirstJob"] = execution.list_steps()[-1]["Metadata"]["ProcessingJob"]["Arn"] == first_job_arn
retried_pipeline.delete()

# --- approval and deployment of the registered model
package = client.list_model_packages(ModelPackageGroupName="pipelines-v2")["ModelPackageSummaryList"][0]
arn = package["ModelPackageArn"]
results["registered"] = package["ModelApprovalStatus"]
client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
ModelPackage(role, model_package_arn=arn, sagemaker_session=plain_session).deploy(
    1, instance_type, endpoint_name="pipelines-v2-approved"
)
approved_predictor = Predictor("pipelines-v2-approved", plain_session, CSVSerializer(), CSVDeserializer())
results["approved"] = approved_predictor.predict([[1, 2, 3]])
approved_predictor.delete_endpoint()
pipeline.delete()
print()
print(json.dumps(results))
