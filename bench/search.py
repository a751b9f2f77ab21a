"""Time of Search over many training jobs, compared with ListTrainingJobs through all of its pages.

    uv run python bench/search.py [--jobs 10000] [--rounds 5]

A client sends the requests to a server in another process. Prints the median seconds of each
request, and their ratio to those of ListTrainingJobs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from harness import run_interleaved

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.state import State


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        add_jobs(home, options.jobs)
        with control.use_server(home, Config(port=0, runtime="process")) as address:
            compare(make_client(address), options.rounds)


def compare(client: Any, rounds: int) -> None:
    candidates: Mapping[str, Callable[[], object]] = {
        "all pages of ListTrainingJobs": lambda: list(client.get_paginator("list_training_jobs").paginate()),
        "Search: the 10 last jobs": partial(search, client, MaxResults=10),
        "Search: one name": partial(search, client, ("TrainingJobName", "Equals", "job-77")),
        "Search: a tag": partial(search, client, ("Tags.team", "Equals", "team-3")),
        "Search: a metric, sorted by a hyperparameter": partial(
            search, client, ("Metrics.loss", "LessThan", "0.5"), SortBy="HyperParameters.learning_rate"
        ),
        "Search: 20 filters": partial(search, client, *[("Metrics.loss", "LessThan", "2")] * 20),
    }
    client.list_training_jobs(MaxResults=1)  # for the first request, the server loads botocore's model of SageMaker
    timings = run_interleaved({name: partial(measure_seconds, run) for name, run in candidates.items()}, rounds)
    medians = {name: statistics.median(seconds) for name, seconds in timings.items()}
    baseline = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(f"{name}: {seconds:.2f} s ({seconds / baseline:.2f})")


def add_jobs(home: Home, count: int) -> None:
    """Store finished training jobs."""
    home.create()
    state = State(home.state)
    for number in range(count):
        name, tags = f"job-{number}", [{"Key": "team", "Value": f"team-{number % 10}"}]
        description = make_description(name, number)
        arn = f"arn:aws:sagemaker:us-east-1:000000000000:training-job/{name}"
        state.add("training-job", name, arn, "Completed", description, description, tags=tags)
    state.close()


def make_description(name: str, number: int) -> dict[str, Any]:
    statuses = ("Starting", "Downloading", "Training", "Uploading", "Completed")
    transitions = [{"Status": status, "StartTime": 1.0, "EndTime": 2.0, "StatusMessage": status} for status in statuses]
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://bucket/in/{name}"}}
    return {
        "TrainingJobName": name,
        "TrainingJobStatus": "Completed",
        "AlgorithmSpecification": {"TrainingImage": "microjobs/train-pytorch:dev", "TrainingInputMode": "File"},
        "HyperParameters": {"learning_rate": str(number * 37 % 1000 / 1000), "epochs": "3", "optimizer": "adam"},
        "InputDataConfig": [{"ChannelName": channel, "DataSource": source} for channel in ("train", "test")],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "FinalMetricDataList": [{"MetricName": "loss", "Value": number % 100 / 100, "Timestamp": 1.0}],
        "SecondaryStatusTransitions": transitions,
    }


def make_client(address: control.Address) -> Any:
    return boto3.client(
        "sagemaker",
        endpoint_url=address.url,
        region_name=address.region,
        aws_access_key_id=address.access_key_id,
        aws_secret_access_key=address.secret_access_key,
    )


def search(client: Any, *filters: tuple[str, str, str], **members: Any) -> object:
    items = [dict(zip(("Name", "Operator", "Value"), item, strict=True)) for item in filters]
    expression = {"SearchExpression": {"Filters": items}} if items else {}
    return client.search(Resource="TrainingJob", **expression, **members)


def measure_seconds(run: Callable[[], object]) -> float:
    start_time = time.perf_counter()
    run()
    return time.perf_counter() - start_time


if __name__ == "__main__":
    main()
