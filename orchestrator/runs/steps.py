"""Steps that several workflows have, and their requests as boto3 sends them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs.contract import Layout
from microjobs_orchestrator.runs import outputs
from microjobs_orchestrator.runs.backend import Backend, RequestContext
from microjobs_orchestrator.runs.kinds import PROCESSING, Members
from microjobs_orchestrator.runs.planned import Namer, PlannedRequest
from microjobs_orchestrator.runs.run import Run

ROWS = 10
"""Test rows that the endpoint predicts, as in the notebook."""


PREDICTIONS = "predictions"
"""The step that stores what the endpoint predicted. Afterwards the endpoint is not needed again."""


def local_path(name: str) -> str:
    """Return the path of a processing job's input or output in the container."""
    return str(Layout().processing(name))


def s3_input(name: str, uri: str, **members: str) -> dict[str, Any]:
    """Return an item of ProcessingInputs: objects that are copied to the folder `name` before the job starts."""
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
    """Return a request of CreateProcessingJob.

    Args:
        name: the job's name.
        application: its AppSpecification.
        inputs: items of ProcessingInputs.
        outputs: folders and S3 URIs by output name.
        instances: instance type and count.
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
    """Return the request of a job that makes raw arrays, by preprocess's command `dataset`."""
    application = {"ImageUri": context.image("preprocess"), "ContainerArguments": ["dataset", *arguments]}
    outputs = {"raw": ("output", raw_uri(context, names))}
    return processing_request(context, names.name("raw"), application, inputs, outputs, context.instances("raw"))


def channel(name: str, uri: str) -> dict[str, Any]:
    """Return an item of InputDataConfig: each host receives all files."""
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
    """Return a request of CreateTrainingJob for one of the trainers."""
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
    """Return the members that a training job and the definition of a tuning job share."""
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
    """Return the S3 URI of the training job's model, which AWS derives from the job's name."""
    return context.uri(f"{names.id}/models/{names.name('train')}/output/model.tar.gz")


def endpoint_requests(context: RequestContext, names: Namer, model: str) -> tuple[Members, Members, Members]:
    """Return the requests of a model, an endpoint configuration and an endpoint, all with the same name."""
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


def predict(backend: Backend, endpoint_name: str, rows: list[list[float]]) -> list[float]:
    """Return an endpoint's predictions, one number per row of features."""
    answer = backend.runtime.invoke_endpoint(
        EndpointName=endpoint_name,
        ContentType="application/json",
        Accept="application/json",
        Body=json.dumps({"instances": rows}).encode(),
    )
    return [float(value) for [value] in json.load(answer["Body"])["predictions"]]


def serve_and_predict(run: Run, model: str, rows: list[list[float]]) -> list[float]:
    """Create an endpoint, store its predictions in the journal, and delete it. A resumed run only reads the journal."""

    def compute() -> list[float]:
        with run.endpoint("Endpoint", *endpoint_requests(run.backend, run, model)) as name:
            return predict(run.backend, name, rows)

    predictions: list[float] = run.once(PREDICTIONS, "Predictions", compute)
    return predictions


def batch_uri(context: RequestContext, names: Namer) -> str:
    return context.uri(f"{names.id}/batch")


def batch_score_request(context: RequestContext, names: Namer, model: str, test: str) -> Members:
    """Return the request of a job that scores the test data with a model archive."""
    return processing_request(
        context,
        names.name("batch-score"),
        {"ImageUri": context.image("batch-score")},
        [s3_input("model", model), s3_input("test", f"{test}/")],
        {"batch": ("batch", batch_uri(context, names))},
        context.instances("batch-score"),
    )


def last_requests(context: RequestContext, names: Namer, model: str, test: str) -> list[PlannedRequest]:
    """Return the requests of the last steps: an endpoint for the model, and the batch score."""
    create = ("CreateModel", "CreateEndpointConfig", "CreateEndpoint")
    titles = ("Model", "Endpoint configuration", "Endpoint")
    return [
        *(
            PlannedRequest("endpoint", title, operation, request, value_step=PREDICTIONS)
            for title, operation, request in zip(titles, create, endpoint_requests(context, names, model), strict=True)
        ),
        PlannedRequest(
            "batch-score", "Batch score", "CreateProcessingJob", batch_score_request(context, names, model, test)
        ),
    ]


def batch_score(run: Run, model: str, test: str, folder: Path) -> tuple[str, list[float]]:
    """Score the test data; return the line of the report and the predictions of all test rows."""
    run.job("batch-score", "Batch score", PROCESSING, batch_score_request(run.backend, run, model, test))
    files = outputs.download(run.backend, batch_uri(run.backend, run), folder / "batch")
    predictions = outputs.read_predictions(files).ravel().tolist()
    return (files / "score-report.txt").read_text(encoding="utf-8"), predictions
