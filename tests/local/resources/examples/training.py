"""Example of a training job."""

from typing import Any

from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from tests.local.clients import ROOT, LocalServer, make_channel, make_training_request
from tests.local.resources.examples import Example

SCRIPT = f"cd {ROOT}; sleep 1; cat input/data/train/x; echo weights > model/weights; echo 'loss: 0.5'"


def make_request(server: LocalServer, name: str) -> dict[str, Any]:
    server.put({f"{name}/input/x": "content\n"})
    metrics = [{"Name": "loss", "Regex": "loss: ([0-9.]+)"}]
    return make_training_request(
        server,
        SCRIPT,
        instances=2,
        algorithm={"MetricDefinitions": metrics},
        TrainingJobName=name,
        InputDataConfig=[make_channel("train", server.uri(f"{name}/input/"))],
        OutputDataConfig={"S3OutputPath": server.uri(f"{name}/models")},
    )


EXAMPLES = (Example(TRAINING_JOB, make_request),)
