"""The steps that both workflows have. Requests are what boto3 sends; `run.name(step)` makes their names."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microjobs.contract import Layout
from microjobs_orchestrator.runs import store
from microjobs_orchestrator.runs.backend import Backend, Members, RequestContext
from microjobs_orchestrator.runs.plan import Namer, PlannedRequest
from microjobs_orchestrator.runs.results import Picture
from microjobs_orchestrator.runs.run import Run

ROWS = 10
"""Test rows whose predictions are shown beside their targets, as in the notebook."""


def local_path(name: str) -> str:
    """Where a processing job finds an input, or leaves an output."""
    return str(Layout().processing(name))


def s3_input(name: str, uri: str, **members: str) -> dict[str, Any]:
    """An item of ProcessingInputs, copied to the folder of its name before the job starts."""
    source = {"S3Uri": uri, "LocalPath": local_path(name), "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": {**source, **members}}


def processing_request(
    context: RequestContext,
    name: str,
    application: Members,
    inputs: Sequence[Members],
    outputs: Mapping[str, tuple[str, str]],
    instances: Members,
) -> Members:
    """A processing job's request.

    Args:
        name: the job's.
        application: its AppSpecification.
        inputs: as `s3_input` makes them.
        outputs: folder and S3 address by an output's name.
        instances: type and count.
    """
    return {
        "ProcessingJobName": name,
        "RoleArn": context.role,
        "AppSpecification": application,
        "ProcessingInputs": inputs,
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": output,
                    "S3Output": {"S3Uri": uri, "LocalPath": local_path(folder), "S3UploadMode": "EndOfJob"},
                }
                for output, (folder, uri) in outputs.items()
            ]
        },
        "ProcessingResources": {"ClusterConfig": {**instances, "VolumeSizeInGB": 30}},
        "StoppingCondition": {"MaxRuntimeInSeconds": context.max_seconds},
    }


def raw_uri(context: RequestContext, names: Namer) -> str:
    return context.uri(f"{names.id}/raw")


def raw_request(
    context: RequestContext, names: Namer, arguments: Sequence[str], inputs: Sequence[Members] = ()
) -> Members:
    """Raw arrays, made by preprocess's `dataset`."""
    application = {"ImageUri": context.image("preprocess"), "ContainerArguments": ["dataset", *arguments]}
    outputs = {"raw": ("output", raw_uri(context, names))}
    return processing_request(context, names.name("raw"), application, inputs, outputs, context.instances("raw"))


def channel(name: str, uri: str) -> dict[str, Any]:
    """An item of InputDataConfig: each host gets all files."""
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{uri}/", "S3DataDistributionType": "FullyReplicated"}
        },
    }


def train_request(
    context: RequestContext,
    names: Namer,
    trainer: str,
    hyperparameters: Mapping[str, str],
    channels: Sequence[Members],
    metrics: Sequence[Mapping[str, str]],
) -> Members:
    """A training job of one of the trainers."""
    return {
        "TrainingJobName": names.name("train"),
        "HyperParameters": dict(hyperparameters),
        **training_definition(context, names, "train", trainer, channels, metrics),
    }


def training_definition(
    context: RequestContext,
    names: Namer,
    step: str,
    trainer: str,
    channels: Sequence[Members],
    metrics: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """What a training job has in common with those that a tuning job starts."""
    return {
        "RoleArn": context.role,
        "AlgorithmSpecification": {
            "TrainingImage": context.image(trainer),
            "TrainingInputMode": "File",
            "MetricDefinitions": metrics,
        },
        "InputDataConfig": channels,
        "OutputDataConfig": {"S3OutputPath": context.uri(f"{names.id}/models")},
        "ResourceConfig": {**context.instances(step), "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": context.max_seconds},
    }


def model_uri(context: RequestContext, names: Namer) -> str:
    """Where the training job's model is going to lie: AWS derives it from the job's name."""
    return context.uri(f"{names.id}/models/{names.name('train')}/output/model.tar.gz")


def endpoint_requests(context: RequestContext, names: Namer, model: str) -> tuple[Members, Members, Members]:
    """A model, an endpoint's configuration, and the endpoint, all of one name."""
    name = names.name("endpoint")
    instances = context.instances("endpoint")
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InitialInstanceCount": context.endpoint_instances,
        "InstanceType": instances["InstanceType"],
    }
    container = {"Image": context.image("serve"), "ModelDataUrl": model}
    return (
        {"ModelName": name, "PrimaryContainer": container, "ExecutionRoleArn": context.role},
        {"EndpointConfigName": name, "ProductionVariants": [variant]},
        {"EndpointName": name, "EndpointConfigName": name},
    )


@contextmanager
def endpoint(backend: Backend, run: Run, model: str) -> Iterator[str]:
    """An endpoint for a model archive, while the block runs; its name."""
    with run.endpoint("Endpoint", *endpoint_requests(backend, run, model)) as name:
        yield name


def predict(backend: Backend, endpoint_name: str, rows: list[list[float]]) -> list[float]:
    """What an endpoint says about rows of features, one number a row."""
    answer = backend.runtime.invoke_endpoint(
        EndpointName=endpoint_name,
        ContentType="application/json",
        Accept="application/json",
        Body=json.dumps({"instances": rows}).encode(),
    )
    return [float(value) for [value] in json.load(answer["Body"])["predictions"]]


def serve_and_predict(backend: Backend, run: Run, model: str, rows: list[list[float]]) -> list[float]:
    """Predictions of an endpoint that lives as long as this takes."""
    with endpoint(backend, run, model) as name:
        return predict(backend, name, rows)


def batch_uri(context: RequestContext, names: Namer) -> str:
    return context.uri(f"{names.id}/batch")


def batch_score_request(context: RequestContext, names: Namer, model: str, test: str) -> Members:
    """Score the test data with a model archive."""
    return processing_request(
        context,
        names.name("batch-score"),
        {"ImageUri": context.image("batch-score")},
        [s3_input("model", model), s3_input("test", f"{test}/")],
        {"batch": ("batch", batch_uri(context, names))},
        context.instances("batch-score"),
    )


def last_requests(context: RequestContext, names: Namer, model: str, test: str) -> list[PlannedRequest]:
    """How both workflows end: an endpoint for the model, and the batch score."""
    create = ("CreateModel", "CreateEndpointConfig", "CreateEndpoint")
    titles = ("Model", "Endpoint's configuration", "Endpoint")
    return [
        *(
            PlannedRequest("endpoint", title, operation, request)
            for title, operation, request in zip(titles, create, endpoint_requests(context, names, model), strict=True)
        ),
        PlannedRequest(
            "batch-score", "Batch score", "CreateProcessingJob", batch_score_request(context, names, model, test)
        ),
    ]


def scores(backend: Backend, batch: str, folder: Path) -> tuple[str, list[float]]:
    """The score report's line, and the predictions of all test rows, from files fetched into a folder."""
    files = store.fetch(backend, batch, folder / "batch")
    predictions = store.read_predictions(files).ravel().tolist()
    return (files / "score-report.txt").read_text(encoding="utf-8"), predictions


def pictures(output: Mapping[str, bytes], titles: Mapping[str, str]) -> list[Picture]:
    """The plots among a training job's output files that are there."""
    return [Picture(title, output[name]) for name, title in titles.items() if name in output]
