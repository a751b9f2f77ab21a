"""Example of a transform job."""

from typing import Any

from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from tests.local.clients import LocalServer
from tests.local.resources.examples import Example


def make_request(server: LocalServer, name: str) -> dict[str, Any]:
    server.put({f"{name}/rows/{number}.csv": f"{number},2,3\n" for number in range(3)})
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": server.uri(f"{name}/rows/")}}
    return {
        "ModelName": name,
        "TransformInput": {"DataSource": source, "ContentType": "text/csv", "SplitType": "Line"},
        "TransformOutput": {"S3OutputPath": server.uri(f"{name}/scores"), "Accept": "text/csv"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 2},
    }


EXAMPLES = (Example(TRANSFORM_JOB, make_request, required_kinds=(MODEL,)),)
