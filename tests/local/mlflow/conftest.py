"""Fixtures: the operations on MLflow servers whose processes are fakes, and a gateway in front of these servers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.gateway.mlflow import MlflowGateway
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.resources.mlflow.connector_finder import make_connector_finder
from microjobs_orchestrator.local.resources.mlflow.registration import make_registrar
from microjobs_orchestrator.local.resources.operations import get_runnable_makers_by_kind, load_operations
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from tests.local.gateways import make_interceptors, serve_gateway
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fake_programs import FakeProgram, FakePrograms
from tests.local.jobs.fakes import FakeRuntime
from tests.polling import wait_until

ROLE = "arn:aws:iam::000000000000:role/microjobs"
TOKEN = "t" * 64
CREDENTIALS = Credentials("A" * 20, "s" * 40)
STORE = "s3://bucket/mlflow"


class FakeMlflow:
    """The operations on MLflow servers, whose processes are fakes. The fakes run in the process of the test."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.runtime = FakeRuntime()
        self.parts = ServerParts.from_home(home, self.runtime)
        self._kind_operations = load_operations(self.parts.context, self.parts.registry)
        self.operations = SageMaker(self.parts.context, self._kind_operations).list_handlers()

    @property
    def programs(self) -> FakePrograms:
        programs = self.parts.context.programs
        assert isinstance(programs, FakePrograms)
        return programs

    @property
    def program(self) -> FakeProgram:
        """The fake process that was started last."""
        return self.programs.started_programs[-1]

    def call(self, operation: str, **members: Any) -> Mapping[str, Any]:
        return self.operations[operation](members)

    def create(self, name: str = "one", **members: Any) -> str:
        """Create a tracking server, and wait until its status is final; return the status."""
        request = {"TrackingServerName": name, "ArtifactStoreUri": STORE, "RoleArn": ROLE, **members}
        self.call("CreateMlflowTrackingServer", **request)
        return self.wait_for_final_status(name)

    def create_app(self, name: str = "app", **members: Any) -> str:
        """Create an app; return its ARN."""
        arn: str = self.call("CreateMlflowApp", Name=name, ArtifactStoreUri=STORE, RoleArn=ROLE, **members)["Arn"]
        wait_until(lambda: self.call("DescribeMlflowApp", Arn=arn)["Status"] == "Created")
        return arn

    def describe(self, name: str = "one") -> Mapping[str, Any]:
        return self.call("DescribeMlflowTrackingServer", TrackingServerName=name)

    def wait_for_final_status(self, name: str = "one") -> str:
        """Wait until the status is final, and return it."""
        transitional = ("Creating", "Updating", "Starting", "Stopping")
        wait_until(lambda: self.describe(name)["TrackingServerStatus"] not in transitional)
        return str(self.describe(name)["TrackingServerStatus"])

    def read_failure_reason(self, name: str = "one") -> str:
        record = self.parts.context.state.get("mlflow-tracking-server", name)
        assert record is not None
        return str(record.description["FailureReason"])

    def restart(self) -> "FakeMlflow":
        """End this server with its processes, and start another server with the same home."""
        self.parts.registry.shut_down()
        next_server = FakeMlflow(self.home)
        next_server.parts.registry.recover(get_runnable_makers_by_kind(next_server._kind_operations))
        return next_server

    def close(self) -> None:
        self.parts.close()
        self.runtime.close()


@pytest.fixture
def fake_mlflow(tmp_path: Path) -> Iterator[FakeMlflow]:
    home = Home(tmp_path / "home")
    home.create()
    home.credentials()
    (home.buckets / "bucket").mkdir()
    fake_mlflow = FakeMlflow(home)
    yield fake_mlflow
    fake_mlflow.close()


@contextmanager
def run_gateway(fake_mlflow: FakeMlflow) -> Iterator[int]:
    """Serve the operations and the MLflow servers on a port; yield the port."""
    context = fake_mlflow.parts.context
    find, region = make_connector_finder(context), context.settings.region
    gateway = MlflowGateway(find, context.ui_sessions, TOKEN, region, make_registrar(context))
    interceptors = make_interceptors(CREDENTIALS, {"sagemaker": fake_mlflow.operations}, gateway)
    with serve_gateway([gateway.answer_page, *interceptors]) as port:
        yield port


@pytest.fixture
def port(fake_mlflow: FakeMlflow) -> Iterator[int]:
    """The port of a gateway with the tracking server `one` and the app `app`."""
    fake_mlflow.create()
    fake_mlflow.create_app()
    with run_gateway(fake_mlflow) as port:
        yield port
