"""Steps that several workflows share, and the requests of these steps for boto3."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs.contract import Layout
from microjobs_orchestrator.runs import outputs
from microjobs_orchestrator.runs.kinds import ENDPOINT, ENDPOINT_CONFIG, MODEL, PROCESSING, TRAINING, Kind, Members
from microjobs_orchestrator.runs.planned import PlannedRequest, RunContext
from microjobs_orchestrator.runs.run import Run

ENDPOINT_ROWS = 10
"""Number of test rows that are sent to the endpoint, as in the notebook on which this project is based."""

PREDICTIONS_STEP = "predictions"
"""Name of the step that stores the endpoint's predictions. A run with this step in its journal needs no endpoint."""


def _make_local_path(name: str) -> str:
    """Return the path of a processing job's input or output in the container."""
    return str(Layout().processing(name))


def make_s3_input(name: str, uri: str, **members: str) -> dict[str, Any]:
    """Return an item of ProcessingInputs: objects that are copied to the folder `name` before the job starts."""
    source = {"S3Uri": uri, "LocalPath": _make_local_path(name), "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": {**source, **members}}


def _make_s3_output(name: str, uri: str, folder: str) -> dict[str, Any]:
    target = {"S3Uri": uri, "LocalPath": _make_local_path(folder), "S3UploadMode": "EndOfJob"}
    return {"OutputName": name, "S3Output": target}


def plan_processing(
    context: RunContext,
    step: str,
    title: str,
    application: Members,
    inputs: Sequence[Members],
    folders_by_output: Mapping[str, str],
    instance_count: int = 1,
) -> PlannedRequest:
    """Return the request of a processing job.

    Args:
        application: AppSpecification.
        inputs: items of ProcessingInputs.
        folders_by_output: folders in the container, by name of the output. Each name is also a folder of the run in S3.
    """
    request = {
        "ProcessingJobName": context.name(step),
        "RoleArn": context.backend.role,
        "AppSpecification": application,
        "ProcessingInputs": inputs,
        "ProcessingOutputConfig": {
            "Outputs": [_make_s3_output(name, context.uri(name), folder) for name, folder in folders_by_output.items()]
        },
        "ProcessingResources": {
            "ClusterConfig": {**context.backend.make_instance_members(step, instance_count), "VolumeSizeInGB": 30}
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": context.backend.max_seconds},
    }
    return PlannedRequest(step, title, PROCESSING, request)


def plan_raw_data(context: RunContext, arguments: Sequence[str], inputs: Sequence[Members] = ()) -> PlannedRequest:
    """Return the request of a job that writes arrays to the run's folder `raw` with preprocess's command `dataset`."""
    application = {
        "ImageUri": context.backend.find_image_uri("preprocess"),
        "ContainerArguments": ["dataset", *arguments],
    }
    return plan_processing(context, "raw", "Raw data", application, inputs, folders_by_output={"raw": "output"})


def make_channel(name: str, uri: str) -> dict[str, Any]:
    """Return an item of InputDataConfig: each host receives all files."""
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{uri}/", "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def plan_training(
    context: RunContext,
    trainer: str,
    hyperparameters: Mapping[str, str],
    channels: Sequence[Members],
    metric_definitions: Sequence[Mapping[str, str]],
) -> PlannedRequest:
    """Return the request of a training job with one of the trainers."""
    request = {
        "TrainingJobName": context.name("train"),
        "HyperParameters": hyperparameters,
        **make_training_definition(context, "train", trainer, channels, metric_definitions),
    }
    return PlannedRequest("train", "Training", TRAINING, request)


def make_training_definition(
    context: RunContext,
    step: str,
    trainer: str,
    channels: Sequence[Members],
    metric_definitions: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Return the members that a training job and the definition of a tuning job share."""
    return {
        "RoleArn": context.backend.role,
        "AlgorithmSpecification": {
            "TrainingImage": context.backend.find_image_uri(trainer),
            "TrainingInputMode": "File",
            "MetricDefinitions": metric_definitions,
        },
        "InputDataConfig": channels,
        "OutputDataConfig": {"S3OutputPath": context.uri("models")},
        "ResourceConfig": {**context.backend.make_instance_members(step), "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": context.backend.max_seconds},
    }


def derive_model_uri(context: RunContext) -> str:
    """Return the S3 URI of the training job's model, which AWS derives from the job's name."""
    return context.uri(f"models/{context.name('train')}/output/model.tar.gz")


def plan_endpoint(context: RunContext, model_uri: str) -> list[PlannedRequest]:
    """Return the requests of a model, an endpoint configuration and an endpoint, all with the same name.

    Args:
        model_uri: the S3 URI of the model archive.
    """
    name = context.name("endpoint")
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InitialInstanceCount": context.backend.endpoint_instances,
        "InstanceType": context.backend.make_instance_members("endpoint")["InstanceType"],
    }
    container = {"Image": context.backend.find_image_uri("serve"), "ModelDataUrl": model_uri}
    requests: dict[Kind, Members] = {
        MODEL: {"ModelName": name, "PrimaryContainer": container, "ExecutionRoleArn": context.backend.role},
        ENDPOINT_CONFIG: {"EndpointConfigName": name, "ProductionVariants": [variant]},
        ENDPOINT: {"EndpointName": name, "EndpointConfigName": name},
    }
    return [PlannedRequest("endpoint", "Endpoint", *item, result_step=PREDICTIONS_STEP) for item in requests.items()]


def serve_and_predict(run: Run, model_uri: str, rows: list[list[float]]) -> list[float]:
    """Return one prediction per row from a temporary endpoint. A resumed run reads the predictions from the journal."""

    def compute() -> list[float]:
        with run.create_temporary_endpoint(plan_endpoint(run, model_uri)) as name:
            response = run.backend.runtime.invoke_endpoint(
                EndpointName=name,
                ContentType="application/json",
                Accept="application/json",
                Body=json.dumps({"instances": rows}).encode(),
            )
            return [float(value) for [value] in json.load(response["Body"])["predictions"]]

    predictions: list[float] = run.compute_once(PREDICTIONS_STEP, "Predictions", compute)
    return predictions


def plan_scoring(context: RunContext, model_uri: str, test_uri: str) -> PlannedRequest:
    """Return the request of a job that scores a folder of test data with a model archive."""
    application = {"ImageUri": context.backend.find_image_uri("batch-score")}
    inputs = [make_s3_input("model", model_uri), make_s3_input("test", f"{test_uri}/")]
    return plan_processing(
        context, "batch-score", "Batch score", application, inputs, folders_by_output={"batch": "batch"}
    )


def score_test_data(run: Run, model_uri: str, test_uri: str, folder: Path) -> tuple[str, list[float]]:
    """Score the test data; return the text of score-report.txt and the predictions of all test rows."""
    run.run_job(plan_scoring(run, model_uri, test_uri))
    batch_folder = outputs.download(run.backend, run.uri("batch"), folder / "batch")
    predictions = outputs.read_predictions(batch_folder).ravel().tolist()
    return (batch_folder / "score-report.txt").read_text(encoding="utf-8"), predictions
