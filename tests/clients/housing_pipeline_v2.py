"""The housing workflow as a pipeline of the SageMaker SDK v2: scale, train, tune, score, register, approve, deploy.

Runs in the SDK's virtual environment.
Usage: housing_pipeline_v2.py PREPROCESS-IMAGE TRAIN-IMAGE SERVE-IMAGE BATCH-SCORE-IMAGE
"""

import json
import os
import sys

from sagemaker import ModelPackage, Session
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.processing import ProcessingInput, ProcessingOutput, Processor
from sagemaker.serializers import JSONSerializer
from sagemaker.tuner import ContinuousParameter, HyperparameterTuner
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionLessThanOrEqualTo
from sagemaker.workflow.fail_step import FailStep
from sagemaker.workflow.functions import Join, JsonGet
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterFloat, ParameterInteger
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.properties import PropertyFile
from sagemaker.workflow.steps import ProcessingStep, TrainingStep, TuningStep

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

preprocess_image, train_image, serve_image, batch_score_image = sys.argv[1:]
poll_quickly()
session = Session()
pipeline_session = PipelineSession()  # it sends no requests, but stores them for steps
role, instance_type = os.environ["SAGEMAKER_ROLE"], "ml.m5.large"
mse_limit = ParameterFloat("MaxMse", default_value=8000.0)
host_count = ParameterInteger("Hosts", default_value=2)


def locate(name: str) -> str:
    """Return the path of an input or an output in the container."""
    return str(Layout().processing(name))


def make_processor(image: str, count: object = 1) -> Processor:
    return Processor(role, image, count, instance_type, sagemaker_session=pipeline_session)


def make_output(name: str, folder: str) -> ProcessingOutput:
    return ProcessingOutput(output_name=name, source=locate(folder))


def get_output(step: ProcessingStep, name: str) -> object:
    return step.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri


raw = ProcessingStep(
    "Raw",
    step_args=make_processor(preprocess_image).run(
        arguments=["dataset", "diabetes", "--shards", "2"], outputs=[make_output("raw", "output")]
    ),
)
shards = ProcessingInput(get_output(raw, "raw"), locate("input"), s3_data_distribution_type="ShardedByS3Key")
scale = ProcessingStep(
    "Scale",
    step_args=make_processor(preprocess_image, host_count).run(
        inputs=[shards], outputs=[make_output("train", "train"), make_output("test", "test")]
    ),
)
channels = {name: TrainingInput(get_output(scale, name)) for name in ("train", "test")}
estimator = Estimator(
    train_image,
    role,
    1,
    instance_type,
    sagemaker_session=pipeline_session,
    hyperparameters={"epochs": 5, "batch_size": 32},
    metric_definitions=[{"Name": "val_loss", "Regex": r" val_loss: ([0-9\.]+)"}],
    output_path=f"s3://{session.default_bucket()}/housing-v2",
)
training = TrainingStep("Train", step_args=estimator.fit(channels))
tuner = HyperparameterTuner(
    estimator,
    "val_loss",
    {"learning_rate": ContinuousParameter(0.001, 0.1, scaling_type="Logarithmic")},
    estimator.metric_definitions,
    objective_type="Minimize",
    max_jobs=2,
    max_parallel_jobs=2,
)
tuning = TuningStep("Tune", step_args=tuner.fit(channels), depends_on=[training])
best_model = tuning.get_top_model_s3_uri(0, session.default_bucket(), "housing-v2")
report = PropertyFile("Report", "batch", "report.json")
score = ProcessingStep(
    "Score",
    step_args=make_processor(batch_score_image).run(
        inputs=[
            ProcessingInput(best_model, locate("model"), input_name="model"),
            ProcessingInput(get_output(scale, "test"), locate("test"), input_name="test"),
        ],
        outputs=[make_output("batch", "batch")],
    ),
    property_files=[report],
)
model = Model(serve_image, best_model, role, sagemaker_session=pipeline_session)
register = ModelStep(
    "Register",
    model.register(
        content_types=["application/json"],
        response_types=["application/json"],
        inference_instances=[instance_type],
        transform_instances=[instance_type],
        model_package_group_name="housing-v2",
    ),
)
mse = JsonGet("Score", report, "mse")
check_mse = ConditionStep(
    "IsGood",
    conditions=[ConditionLessThanOrEqualTo(mse, mse_limit)],
    if_steps=[register],
    else_steps=[FailStep("Bad", error_message=Join(" ", ["the MSE exceeds", mse_limit]))],
)
pipeline = Pipeline(
    "housing-v2",
    [mse_limit, host_count],
    steps=[raw, scale, training, tuning, score, check_mse],
    sagemaker_session=pipeline_session,
)
pipeline.upsert(role)
execution = pipeline.start()
execution.wait(delay=1, max_attempts=600)
statuses = {step["StepName"]: step["StepStatus"] for step in execution.list_steps()}

client = session.sagemaker_client
(package,) = client.list_model_packages(ModelPackageGroupName="housing-v2")["ModelPackageSummaryList"]
arn = package["ModelPackageArn"]
client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
ModelPackage(role, model_package_arn=arn, sagemaker_session=session).deploy(
    1, instance_type, endpoint_name="housing-v2"
)
predictor = Predictor("housing-v2", session, JSONSerializer(), JSONDeserializer())
predictions = predictor.predict({"instances": [[0.0] * 10]})["predictions"]
predictor.delete_endpoint()
print()
print(json.dumps({"steps": statuses, "status": package["ModelApprovalStatus"], "predictions": len(predictions)}))
