"""The steps that both workflows have. Requests are what boto3 sends; `run.name(step)` makes their names."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microjobs.contract import Layout
from orchestrator.workflows import store
from orchestrator.workflows.kinds import PROCESSING, TRAINING, Answer
from orchestrator.workflows.place import Place
from orchestrator.workflows.results import Picture
from orchestrator.workflows.run import Run

ROWS = 10
"""Test rows whose predictions are shown beside their targets, as in the notebook."""
DAY = 86_400


def local_path(name: str) -> str:
    """Where a processing job finds an input, or leaves an output."""
    return str(Layout().processing(name))


def raw_data(place: Place, run: Run, arguments: list[str], inputs: list[dict[str, Any]]) -> str:
    """Raw arrays, made by preprocess's `dataset`; their S3 address."""
    raw = f"s3://{place.bucket}/{run.id}/raw"
    run.job(
        "raw",
        "Raw data",
        PROCESSING,
        {
            "ProcessingJobName": run.name("raw"),
            "RoleArn": place.role,
            "AppSpecification": {
                "ImageUri": place.image("preprocess"),
                "ContainerArguments": ["dataset", *arguments],
            },
            "ProcessingInputs": inputs,
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "raw",
                        "S3Output": {"S3Uri": raw, "LocalPath": local_path("output"), "S3UploadMode": "EndOfJob"},
                    }
                ]
            },
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": place.instance_type, "VolumeSizeInGB": 30}
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": DAY},
        },
    )
    return raw


def channel(name: str, uri: str) -> dict[str, Any]:
    """An item of InputDataConfig: each host gets all files."""
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{uri}/", "S3DataDistributionType": "FullyReplicated"}
        },
    }


def train(
    place: Place,
    run: Run,
    trainer: str,
    hyperparameters: Mapping[str, str],
    channels: Sequence[dict[str, Any]],
    metrics: Sequence[dict[str, str]],
) -> Answer:
    """A training job; its description."""
    return run.job(
        "train",
        "Training",
        TRAINING,
        {
            "TrainingJobName": run.name("train"),
            "RoleArn": place.role,
            "AlgorithmSpecification": {
                "TrainingImage": place.image(trainer),
                "TrainingInputMode": "File",
                "MetricDefinitions": metrics,
            },
            "HyperParameters": dict(hyperparameters),
            "InputDataConfig": channels,
            "OutputDataConfig": {"S3OutputPath": f"s3://{place.bucket}/{run.id}/models"},
            "ResourceConfig": {"InstanceCount": 1, "InstanceType": place.instance_type, "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": DAY},
        },
    )


@contextmanager
def endpoint(place: Place, run: Run, model: str) -> Iterator[str]:
    """An endpoint for a model archive, while the block runs; its name."""
    name = run.name("endpoint")
    with run.endpoint(
        "Endpoint",
        {
            "ModelName": name,
            "PrimaryContainer": {"Image": place.image("serve"), "ModelDataUrl": model},
            "ExecutionRoleArn": place.role,
        },
        {
            "EndpointConfigName": name,
            "ProductionVariants": [
                {
                    "VariantName": "AllTraffic",
                    "ModelName": name,
                    "InitialInstanceCount": 1,
                    "InstanceType": place.instance_type,
                }
            ],
        },
        {"EndpointName": name, "EndpointConfigName": name},
    ):
        yield name


def predict(place: Place, endpoint_name: str, rows: list[list[float]]) -> list[float]:
    """What an endpoint says about rows of features, one number a row."""
    answer = place.runtime.invoke_endpoint(
        EndpointName=endpoint_name,
        ContentType="application/json",
        Accept="application/json",
        Body=json.dumps({"instances": rows}).encode(),
    )
    return [float(value) for [value] in json.load(answer["Body"])["predictions"]]


def serve_and_predict(place: Place, run: Run, model: str, rows: list[list[float]]) -> list[float]:
    """Predictions of an endpoint that lives as long as this takes."""
    with endpoint(place, run, model) as name:
        return predict(place, name, rows)


def batch_score(place: Place, run: Run, model: str, test: str) -> str:
    """Score the test data with a model archive; the S3 address of the report."""
    batch = f"s3://{place.bucket}/{run.id}/batch"
    run.job(
        "batch-score",
        "Batch score",
        PROCESSING,
        {
            "ProcessingJobName": run.name("batch-score"),
            "RoleArn": place.role,
            "AppSpecification": {"ImageUri": place.image("batch-score")},
            "ProcessingInputs": [
                {
                    "InputName": "model",
                    "S3Input": {
                        "S3Uri": model,
                        "LocalPath": local_path("model"),
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                    },
                },
                {
                    "InputName": "test",
                    "S3Input": {
                        "S3Uri": f"{test}/",
                        "LocalPath": local_path("test"),
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                    },
                },
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "batch",
                        "S3Output": {"S3Uri": batch, "LocalPath": local_path("batch"), "S3UploadMode": "EndOfJob"},
                    }
                ]
            },
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": place.instance_type, "VolumeSizeInGB": 30}
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": DAY},
        },
    )
    return batch


def scores(place: Place, batch: str, folder: Path) -> tuple[str, list[float]]:
    """The score report's line, and the predictions of all test rows, from files fetched into a folder."""
    files = store.fetch(place, batch, folder / "batch")
    predictions = store.read_predictions(files).ravel().tolist()
    return (files / "score-report.txt").read_text(encoding="utf-8"), predictions


def pictures(output: Mapping[str, bytes], titles: Mapping[str, str]) -> list[Picture]:
    """The plots among a training job's output files that are there."""
    return [Picture(title, output[name]) for name, title in titles.items() if name in output]
