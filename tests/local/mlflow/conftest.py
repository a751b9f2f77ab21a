"""Fixtures: the operations on MLflow servers whose processes are fakes, and a gateway in front of them."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.gateway.chain import Gateway, list_interceptors
from microjobs_orchestrator.local.gateway.forward import Forwarder
from microjobs_orchestrator.local.gateway.listener import Server
from microjobs_orchestrator.local.gateway.mlflow import MlflowGateway
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.resources.mlflow.clients import make_connector
from microjobs_orchestrator.local.resources.mlflow.registration import make_register
from microjobs_orchestrator.local.resources.operations import list_makers, load_operations
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from tests.local.jobs.conftest import ServerParts, wait_until
from tests.local.jobs.fake_programs import FakeProgram, FakePrograms
from tests.local.jobs.fakes import FakeRuntime

ROLE = "arn:aws:iam::000000000000:role/microjobs"
TOKEN = "t" * 64
CREDENTIALS = Credentials("A" * 20, "s" * 40)
STORE = "s3://bucket/mlflow"


class Mlflow:
    """The operations on MLflow servers, whose processes are in this process."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.runtime = FakeRuntime()
        self.parts = ServerParts.from_home(home, self.runtime)
        self._kinds = load_operations(self.parts.context, self.parts.registry)
        self.operations = SageMaker(self.parts.context, self._kinds).operations()

    @property
    def programs(self) -> FakePrograms:
        programs = self.parts.context.programs
        assert isinstance(programs, FakePrograms)
        return programs

    @property
    def program(self) -> FakeProgram:
        """The process that was started last."""
        return self.programs.started[-1]

    def call(self, operation: str, **members: Any) -> Mapping[str, Any]:
        return self.operations[operation](members)

    def create(self, name: str = "one", **members: Any) -> str:
        """Create a tracking server, wait until it has a final status; return the status."""
        request = {"TrackingServerName": name, "ArtifactStoreUri": STORE, "RoleArn": ROLE, **members}
        self.call("CreateMlflowTrackingServer", **request)
        return self.settle(name)

    def create_app(self, name: str = "app", **members: Any) -> str:
        """Create an app; return its ARN."""
        arn: str = self.call("CreateMlflowApp", Name=name, ArtifactStoreUri=STORE, RoleArn=ROLE, **members)["Arn"]
        wait_until(lambda: self.call("DescribeMlflowApp", Arn=arn)["Status"] == "Created")
        return arn

    def describe(self, name: str = "one") -> Mapping[str, Any]:
        return self.call("DescribeMlflowTrackingServer", TrackingServerName=name)

    def settle(self, name: str = "one") -> str:
        """Wait until the status is final, and return it."""
        transitional = ("Creating", "Updating", "Starting", "Stopping")
        wait_until(lambda: self.describe(name)["TrackingServerStatus"] not in transitional)
        return str(self.describe(name)["TrackingServerStatus"])

    def read_reason(self, name: str = "one") -> str:
        record = self.parts.context.state.get("mlflow-tracking-server", name)
        assert record is not None
        return str(record.description["FailureReason"])

    def restart(self) -> "Mlflow":
        """End this server, with its processes, and start another one with the same home."""
        self.parts.registry.shut_down()
        after = Mlflow(self.home)
        after.parts.registry.recover(list_makers(after._kinds))
        return after

    def close(self) -> None:
        self.parts.close()
        self.runtime.close()


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Mlflow]:
    home = Home(tmp_path / "home")
    home.create()
    home.credentials()
    (home.buckets / "bucket").mkdir()
    made = Mlflow(home)
    yield made
    made.close()


@contextmanager
def run_gateway(mlflow: Mlflow) -> Iterator[int]:
    """Serve the operations, and their MLflow servers, on a port; yield the port."""
    context = mlflow.parts.context
    find, region = make_connector(context), context.settings.region
    gateway = MlflowGateway(find, context.ui_sessions, TOKEN, region, make_register(context))
    services = {"sagemaker": mlflow.operations}
    hosts = ("localhost", "127.0.0.1")
    further = list_interceptors(CREDENTIALS, services, hosts, lambda *_: "", Forwarder({}), {}, lambda _: None, gateway)
    server = Server(("127.0.0.1", 0), server_name="localhost")
    server.wsgi_app = Gateway([gateway.answer_page, *further])
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server.bind_addr[1]
    server.stop()
    thread.join()


@pytest.fixture
def port(mlflow: Mlflow) -> Iterator[int]:
    """The port of a gateway with the tracking server `one` and the app `app`."""
    mlflow.create()
    mlflow.create_app()
    with run_gateway(mlflow) as number:
        yield number
