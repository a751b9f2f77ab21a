"""Finds the MLflow app with the SageMaker SDK v3, and reads the MLflow runs of a job and of a pipeline.

Runs in the SDK's virtual environment. Usage: mlflow_v3.py IMAGE BUCKET
"""

import json
import os
import sys
import time

import mlflow
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import MlflowApp, TrainingJob
from sagemaker.core.shapes import (
    AlgorithmSpecification,
    MetricDefinition,
    MlflowConfig,
    OutputDataConfig,
    ResourceConfig,
    StoppingCondition,
)
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import TrainingStep
from sagemaker.train import ModelTrainer
from sagemaker.train.common_utils.finetune_utils import _resolve_mlflow_resource_arn
from sagemaker.train.common_utils.mlflow_metrics_util import _MLflowMetricsUtil
from sagemaker.train.configs import Compute, SourceCode

image, bucket = sys.argv[1:]
role = os.environ["SAGEMAKER_ROLE"]
results: dict[str, object] = {}

# --- the app that the SDK's trainers choose
arn = _resolve_mlflow_resource_arn(Session())
results["apps"] = [app.arn == arn for app in MlflowApp.get_all()]

# --- a job with an MlflowConfig
metrics = [MetricDefinition(name="loss", regex="loss: ([0-9.]+)")]
job = TrainingJob.create(
    training_job_name="tracked-by-v3",
    role_arn=role,
    algorithm_specification=AlgorithmSpecification(
        training_image=image,
        training_input_mode="File",
        container_entrypoint=["/bin/sh", "-c"],
        container_arguments=["for number in 3 2 1; do echo loss: 0.$number; done"],
        metric_definitions=metrics,
    ),
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/models"),
    resource_config=ResourceConfig(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=1),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=60),
    hyper_parameters={"epochs": "3"},
    mlflow_config=MlflowConfig(mlflow_resource_arn=arn, mlflow_experiment_name="v3", mlflow_run_name="one"),
)
job.wait(poll=1, logs=False)
util = _MLflowMetricsUtil(arn, "v3")
run_id = job.mlflow_details.mlflow_run_id
results["losses"] = [point["value"] for point in util.get_metric_history(run_id, "loss")]
run = mlflow.get_run(run_id)
results["run"] = [run.info.run_name, run.info.status, run.data.params]

# --- a pipeline with an MlflowConfig
trainer = ModelTrainer(
    training_image=image,
    role=role,
    source_code=SourceCode(command="echo loss: 0.5"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
    sagemaker_session=PipelineSession(),
)
pipeline = Pipeline(
    name="tracked",
    steps=[TrainingStep(name="Train", step_args=trainer.train())],
    mlflow_config=MlflowConfig(mlflow_resource_arn=arn, mlflow_experiment_name="pipelines"),
    sagemaker_session=PipelineSession(),
)
pipeline.upsert(role)
for experiment in (None, "chosen"):
    execution = pipeline.start(mlflow_experiment_name=experiment)
    while (description := execution.describe())["PipelineExecutionStatus"] in ("Executing", "Stopping"):
        time.sleep(0.5)
    name = description["MLflowConfig"]["MlflowExperimentName"]
    runs = mlflow.search_runs(experiment_names=[name], output_format="list")
    results[name] = [description["PipelineExecutionStatus"], [run.info.run_name for run in runs]]
print(json.dumps(results))
