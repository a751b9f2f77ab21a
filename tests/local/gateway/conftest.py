"""Fixtures for the gateway behind a real HTTP server. Stub services return fixed results or parts of the request."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.config import Config

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.gateway.mlflow import MlflowGateway
from microjobs_orchestrator.local.gateway.request_state import AnyService, RequestState
from microjobs_orchestrator.local.gateway.streams import Input
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.resources.models.client import Connect
from microjobs_orchestrator.local.runtimes.base import Image
from microjobs_orchestrator.local.s3.service import OPERATIONS
from microjobs_orchestrator.local.services import sts
from microjobs_orchestrator.local.services.ecr import Ecr
from microjobs_orchestrator.local.services.iam import Iam
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.local.ui_sessions import UiSessions
from tests.local.gateways import make_interceptors, serve_gateway

CREDENTIALS = Credentials("key-of-the-tests", "secret-of-the-tests")

IMAGES = [
    Image(("microjobs/serve:dev", "microjobs/serve:old"), "sha256:" + "1" * 64, size=10, created=100.0),
    Image(("microjobs/serve:new",), "sha256:" + "2" * 64, size=20, created=200.0),
    Image(
        ("elsewhere.com/x:1", "000000000000.dkr.ecr.us-east-1.amazonaws.com/tagged:1"),
        "sha256:" + "3" * 64,
        size=30,
        created=300.0,
    ),
]
"""The images that the stubbed engine lists."""

MakeClient = Callable[..., Any]
"""A function that makes a boto3 client for a service: the value of the fixture `make_client`."""


def _describe_endpoint(request: dict[str, Any]) -> dict[str, Any]:
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


class _Echo:
    """A streaming service that returns the path and the body of each request."""

    operations = OPERATIONS

    def prepare(self, state: RequestState) -> None:
        state.cleanups.append(Input(state.request.environ["wsgi.input"]).drain)

    def invoke(self, state: RequestState) -> OperationResult:
        if state.members.get("Key") == "refused":
            raise ServiceError("NoSuchKey", "refused is refused", 404)
        path = f"/{state.members['Bucket']}/{state.members['Key']}"
        return OperationResult(body=[state.request.get_data()], headers={"x-path": path.encode().hex()})


def _invoke_endpoint(request: dict[str, Any]) -> dict[str, Any]:
    return {"Body": request["Body"]}


@pytest.fixture(scope="package")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway with stub services."""
    state = State(tmp_path_factory.mktemp("services") / "state.db")
    roles = Iam(state)
    services: dict[str, AnyService] = {
        "s3": _Echo(),
        "sagemaker-runtime": {"InvokeEndpoint": _invoke_endpoint},
        "sagemaker": {
            "DescribeEndpoint": _describe_endpoint,
            "ListEndpoints": lambda _: {"Endpoints": []},
            "ListTrainingJobs": lambda _: {"TrainingJobSummaries": []},
        },
        "sts": sts.list_handlers(CREDENTIALS, lambda name: str(roles.get_role(name)["RoleId"])),
        "iam": roles.list_handlers(),
        "ecr": Ecr(state, "us-east-1", lambda: IMAGES).list_handlers(),
    }
    with run_gateway(services) as url:
        yield url
    state.close()


def make_mlflow_gateway() -> MlflowGateway:
    """Return a gateway without MLflow servers."""

    def refuse(arn: str) -> Connect:
        raise ServiceError("ResourceNotFound", f"there is no {arn}", 404)

    return MlflowGateway(refuse, UiSessions(), "token", "us-east-1", lambda *_: None)


@contextmanager
def run_gateway(services: Mapping[str, AnyService]) -> Iterator[str]:
    """Serve services behind a gateway; yield its URL."""
    with serve_gateway(make_interceptors(CREDENTIALS, services, make_mlflow_gateway())) as port:
        yield f"http://localhost:{port}"


@pytest.fixture
def make_client(address: str) -> MakeClient:
    """Return a function that makes a boto3 client for a service. Keyword arguments override the valid credentials."""

    def make(service: str, **overrides: Any) -> Any:
        defaults: dict[str, Any] = {
            "aws_access_key_id": CREDENTIALS.access_key_id,
            "aws_secret_access_key": CREDENTIALS.secret_access_key,
            "region_name": "us-east-1",
            "endpoint_url": address,
            "config": Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        }
        return boto3.client(service, **defaults | overrides)  # type: ignore[call-overload]

    return make
