"""The application behind a real server, with handlers that only show what reached them."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.gateway.application import Application
from microjobs_orchestrator.local.gateway.listener import Server
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.runtimes.base import Image
from microjobs_orchestrator.local.services import sts
from microjobs_orchestrator.local.services.ecr import Ecr
from microjobs_orchestrator.local.services.iam import Iam
from microjobs_orchestrator.local.state import State

CREDENTIALS = Credentials("key-of-the-tests", "secret-of-the-tests")

IMAGES = [
    Image(("microjobs/serve:dev", "microjobs/serve:old"), "sha256:" + "1" * 64, 10, 100.0),
    Image(("microjobs/serve:new",), "sha256:" + "2" * 64, 20, 200.0),
    Image(
        ("elsewhere.com/x:1", "000000000000.dkr.ecr.us-east-1.amazonaws.com/tagged:1"), "sha256:" + "3" * 64, 30, 300.0
    ),
]
"""What the engine has."""

Client = Callable[..., Any]


def _describe(request: dict[str, Any]) -> dict[str, Any]:
    if request["EndpointName"] == "absent":
        raise ValidationError("Could not find endpoint absent")
    if request["EndpointName"] == "bug":
        return {"Nonsense": 1}
    arn = "arn:aws:sagemaker:us-east-1:000000000000:endpoint/here"
    return {
        "EndpointName": request["EndpointName"],
        "EndpointArn": arn,
        "EndpointStatus": "InService",
        "FailureReason": None,
        "CreationTime": 1.5,
        "LastModifiedTime": 2,
    }


def _echo(request: Request) -> Response:
    """What a raw service sees: the path, and the body."""
    if request.path.endswith("refused"):
        raise ServiceError("NoSuchKey", "refused is refused", 404)
    return Response(request.get_data(), headers={"x-path": request.path.encode().hex()})


@pytest.fixture(scope="package")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    state = State(tmp_path_factory.mktemp("services") / "state.db")
    roles = Iam(state)
    services = {
        "sagemaker": {
            "DescribeEndpoint": _describe,
            "ListEndpoints": lambda _: {"Endpoints": []},
            "ListTrainingJobs": lambda _: {"TrainingJobSummaries": []},
        },
        "sts": sts.operations(CREDENTIALS, lambda name: str(roles.role(name)["RoleId"])),
        "iam": roles.operations(),
        "ecr": Ecr(state, "us-east-1", lambda: IMAGES).operations(),
    }
    hosts = ["localhost", "127.0.0.1"]
    application = Application(CREDENTIALS, services, {"s3": _echo, "sagemaker-runtime": _echo}, hosts)
    server = Server(("127.0.0.1", 0), server_name="localhost")
    server.wsgi_app = application
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield f"http://localhost:{server.bind_addr[1]}"
    server.stop()
    thread.join()
    state.close()


@pytest.fixture
def client(address: str) -> Client:
    """A boto3 client of a service, with the right credentials if no others are given."""

    def make(service: str, **changes: Any) -> Any:
        own: dict[str, Any] = {
            "aws_access_key_id": CREDENTIALS.access_key_id,
            "aws_secret_access_key": CREDENTIALS.secret_access_key,
            "region_name": "us-east-1",
            "endpoint_url": address,
            "config": Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        }
        return boto3.client(service, **own | changes)  # type: ignore[call-overload]

    return make
