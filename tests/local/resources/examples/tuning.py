"""Example of a tuning job.

Other examples run a short command, which they set as ContainerEntrypoint. The TrainingJobDefinition of a tuning job
does not have this member, so the trial trains a model with the image train-pytorch.
"""

import io
from typing import Any

import numpy as np

from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from tests.conftest import make_image_name
from tests.local.clients import LocalServer, make_channel
from tests.local.resources.examples import Example

METRIC_DEFINITION = {"Name": "val_loss", "Regex": r"Test loss: ([0-9\.]+)"}


def make_request(server: LocalServer, name: str) -> dict[str, Any]:
    for split in ("train", "test"):
        for array, shape in (("x", (20, 3)), ("y", (20,))):
            content = io.BytesIO()
            np.save(content, np.ones(shape))
            key = f"{name}/{split}/{array}_{split}.npy"
            server.s3.put_object(Bucket=server.address.bucket, Key=key, Body=content.getvalue())
    return {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "RandomSeed": 1,
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": METRIC_DEFINITION["Name"]},
            "ResourceLimits": {"MaxParallelTrainingJobs": 1, "MaxNumberOfTrainingJobs": 1},
            "ParameterRanges": {"IntegerParameterRanges": [{"Name": "batch_size", "MinValue": "1", "MaxValue": "9"}]},
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": make_image_name("train-pytorch"),
                "TrainingInputMode": "File",
                "MetricDefinitions": [METRIC_DEFINITION],
            },
            "StaticHyperParameters": {"epochs": "1", "seed": "1"},
            "InputDataConfig": [make_channel(split, server.uri(f"{name}/{split}/")) for split in ("train", "test")],
            "OutputDataConfig": {"S3OutputPath": server.uri(f"{name}/models")},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 300},
            "RoleArn": server.address.role_arn,
        },
    }


EXAMPLES = (Example(TUNING_JOB, make_request),)
