"""Example of a model."""

import io
import tarfile
from typing import Any

from microjobs_orchestrator.local.resources.models.kinds import MODEL
from tests.bundles import write_linear_bundle
from tests.conftest import make_image_name
from tests.local.clients import LocalServer
from tests.local.resources.examples import Example


def make_request(server: LocalServer, name: str) -> dict[str, Any]:
    key = f"{name}/model.tar.gz"
    put_linear_model(server, key, 1.0)
    container = {"Image": make_image_name("serve"), "ModelDataUrl": server.uri(key)}
    return {"PrimaryContainer": container, "ExecutionRoleArn": server.address.role_arn}


def put_linear_model(server: LocalServer, key: str, weight: float) -> None:
    """Store a model archive whose model returns the sum of three features, each multiplied by a weight."""
    folder = server.home.root / "bundles" / key.replace("/", "-")
    write_linear_bundle(folder, [weight] * 3, 0.0)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(folder, ".")
    server.s3.put_object(Bucket=server.address.bucket, Key=key, Body=content.getvalue())


def put_program(server: LocalServer, key: str, text: str, file: str = "inference.py") -> None:
    """Store a model archive that contains only a Python file, in the folder `code`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        info = tarfile.TarInfo(f"code/{file}")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    server.s3.put_object(Bucket=server.address.bucket, Key=key, Body=content.getvalue())


EXAMPLES = (Example(MODEL, make_request),)
