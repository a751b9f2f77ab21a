"""Operations that the server itself calls, for example CreateModel for a step of a pipeline."""

from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.operation_calls import OperationCaller
from tests.local.jobs.conftest import ServerParts

CONTAINER = {"Image": "model"}
MODEL_DATA_WITH_MANIFEST = {
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
        (
            {"ModelName": "m", "Containers": [{**CONTAINER, **MODEL_DATA_WITH_MANIFEST}]},
            "Not supported here: Containers.0.*Manifest",
        ),
        ({"ModelName": "m", "PrimaryContainer": {**CONTAINER, "ModelDataUrl": "s3://absent/x"}}, "absent"),
    ],
)
def test_invalid_request_is_refused_as_for_clients(parts: ServerParts, members: dict[str, Any], reason: str) -> None:
    """Botocore's model, a parity row, or the operation itself refuses the request."""
    with pytest.raises(ServiceError, match=reason):
        OperationCaller(parts.context, parts.registry).call("CreateModel", members)
    assert parts.context.state.get("model", "m") is None


def test_operation_creates_the_resource(parts: ServerParts) -> None:
    request = {"ModelName": "m", "PrimaryContainer": CONTAINER}
    response = OperationCaller(parts.context, parts.registry).call("CreateModel", request)
    record = parts.context.state.get("model", "m")
    assert record is not None
    assert response["ModelArn"] == record.arn
    assert request == {"ModelName": "m", "PrimaryContainer": CONTAINER}  # the operation does not change its request
