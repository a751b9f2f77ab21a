"""Examples of a model package, and of a group of versions."""

from typing import Any

from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE, MODEL_PACKAGE_GROUP
from tests.conftest import make_image_name
from tests.local.clients import LocalServer
from tests.local.resources.examples import Example


def make_group_request(server: LocalServer, name: str) -> dict[str, Any]:  # noqa: ARG001
    return {"ModelPackageGroupDescription": f"versions of {name}"}


def make_package_request(server: LocalServer, name: str) -> dict[str, Any]:
    server.put({f"{name}/model.txt": "the same content, and so the same ETag, on each server"})
    source = {"S3Uri": server.uri(f"{name}/"), "S3DataType": "S3Prefix", "CompressionType": "None"}
    specification = {
        "Containers": [{"Image": make_image_name("serve"), "ModelDataSource": {"S3DataSource": source}}],
        "SupportedTransformInstanceTypes": ["ml.m5.large"],
        "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
    }
    return {"InferenceSpecification": specification}


EXAMPLES = (Example(MODEL_PACKAGE_GROUP, make_group_request), Example(MODEL_PACKAGE, make_package_request))
