"""Operations that the server itself requests."""

from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.invocation import Invoker
from tests.local.jobs.conftest import ServerParts

CONTAINER = {"Image": "model"}
MANIFEST = {
    "ModelDataSource": {
        "S3DataSource": {
            "S3Uri": "s3://bucket/x",
            "S3DataType": "S3Object",
            "CompressionType": "Gzip",
            "ManifestS3Uri": "s3://bucket/manifest",
        }
    }
}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"PrimaryContainer": CONTAINER}, "1 validation error detected: .*'modelName'"),
        ({"ModelName": "m", "Containers": [{**CONTAINER, **MANIFEST}]}, "Not supported here: Containers.0.*Manifest"),
        ({"ModelName": "m", "PrimaryContainer": {**CONTAINER, "ModelDataUrl": "s3://absent/x"}}, "absent"),
    ],
)
def test_operation_is_refused_as_a_clients_request(parts: ServerParts, members: dict[str, Any], reason: str) -> None:
    """The model, the parity rows, or the handler refuse the request."""
    with pytest.raises(ServiceError, match=reason):
        Invoker(parts.context, parts.registry).invoke("CreateModel", members)
    assert parts.context.state.get("model", "m") is None


def test_operation_is_performed(parts: ServerParts) -> None:
    request = {"ModelName": "m", "PrimaryContainer": CONTAINER}
    answer = Invoker(parts.context, parts.registry).invoke("CreateModel", request)
    record = parts.context.state.get("model", "m")
    assert record is not None
    assert (answer["ModelArn"], request) == (record.arn, {"ModelName": "m", "PrimaryContainer": CONTAINER})
