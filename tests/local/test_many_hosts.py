"""Tests that both trainers use two hosts of the local server."""

import io
import json
import tarfile
from typing import Any

import numpy as np
import pytest

from tests.conftest import make_image_name
from tests.local.clients import LocalServer, make_channel, make_training_request

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("job", ["train-tensorflow", "train-pytorch"])
def test_trainer_uses_both_hosts(job: str, server: LocalServer) -> None:
    """Each host reads half of the training files, and only the first host prints epochs and writes the model."""
    put_arrays(server, job)
    request: dict[str, Any] = make_training_request(
        server,
        "",
        instances=2,
        HyperParameters={"epochs": "3", "batch_size": "10"},
        InputDataConfig=[
            make_channel("train", server.uri(f"{job}/train/"), "ShardedByS3Key"),
            make_channel("test", server.uri(f"{job}/test/")),
        ],
    )
    request["AlgorithmSpecification"] = {"TrainingImage": make_image_name(job), "TrainingInputMode": "File"}
    server.sagemaker.create_training_job(**request)
    name = request["TrainingJobName"]
    description = server.wait_for_end(name)
    assert description["TrainingJobStatus"] == "Completed", description.get("FailureReason")
    lines = server.read_logs("TrainingJobs", name)
    assert "of each of 2 hosts" in "\n".join(lines["algo-1"])
    assert [line for line in lines["algo-2"] if line.startswith("Epoch")] == []
    with tarfile.open(server.bucket / f"models/{name}/output/model.tar.gz") as model:
        manifest = model.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)["metrics"]["epochs"] == 3


def put_arrays(server: LocalServer, prefix: str) -> None:
    random = np.random.default_rng(0)
    for split, rows, shards in (("train", 24, 2), ("test", 8, 1)):
        x = random.normal(size=(rows, 4))
        for name, values in (("x", x), ("y", x.sum(axis=1) + 20)):
            for number, shard in enumerate(np.split(values, shards)):
                buffer = io.BytesIO()
                np.save(buffer, shard)
                key = f"{prefix}/{split}/{name}_{split}-{number:05}-of-{shards:05}.npy"
                server.s3.put_object(Bucket=server.address.bucket, Key=key, Body=buffer.getvalue())
