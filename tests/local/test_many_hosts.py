"""Trainers on two hosts of the local server, which writes what the hosts know of each other."""

import io
import json
import tarfile
from typing import Any

import numpy as np
import pytest

from tests.conftest import image_name
from tests.local.clients import Local, channel, training_request

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("job", ["train-tensorflow", "train-pytorch"])
def test_trainer_uses_both_hosts(job: str, local: Local) -> None:
    """Each host has half of the training files, the model comes once, and only the first host tells the epochs."""
    put_rows(local, job)
    request: dict[str, Any] = training_request(
        local,
        "",
        instances=2,
        HyperParameters={"epochs": "3", "batch_size": "10"},
        InputDataConfig=[
            channel("train", local.uri(f"{job}/train/"), "ShardedByS3Key"),
            channel("test", local.uri(f"{job}/test/")),
        ],
    )
    request["AlgorithmSpecification"] = {"TrainingImage": image_name(job), "TrainingInputMode": "File"}
    local.sagemaker.create_training_job(**request)
    name = request["TrainingJobName"]
    ended = local.ended(name)
    assert ended["TrainingJobStatus"] == "Completed", ended.get("FailureReason")
    lines = local.output("TrainingJobs", name)
    assert "of each of 2 hosts" in "\n".join(lines["algo-1"])
    assert [line for line in lines["algo-2"] if line.startswith("Epoch")] == []
    with tarfile.open(local.bucket / f"models/{name}/output/model.tar.gz") as model:
        manifest = model.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)["metrics"]["epochs"] == 3


def put_rows(local: Local, prefix: str) -> None:
    random = np.random.default_rng(0)
    for split, rows, shards in (("train", 24, 2), ("test", 8, 1)):
        x = random.normal(size=(rows, 4))
        for kind, values in (("x", x), ("y", x.sum(axis=1) + 20)):
            for number, part in enumerate(np.split(values, shards)):
                buffer = io.BytesIO()
                np.save(buffer, part)
                key = f"{prefix}/{split}/{kind}_{split}-{number:05}-of-{shards:05}.npy"
                local.s3.put_object(Bucket=local.address.bucket, Key=key, Body=buffer.getvalue())
