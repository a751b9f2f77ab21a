"""Secrets in the environment of the user who starts the server must not reach containers, files or logs."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from microjobs.contract import Layout
from microjobs_orchestrator.local.runtimes.docker.labels import GUARD_LABEL
from tests.conftest import image_name
from tests.local.clients import SHELL, LocalServer, running_server, unique
from tests.local.machine import list_containers

pytestmark = pytest.mark.engine

LAYOUT = Layout()
LOGIN = base64.b64encode(b"robot:planted-registry-password").decode()
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED000000001",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+access/key",
    "AWS_SESSION_TOKEN": "planted-session-token",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": "planted-container-token",
    "DOCKER_AUTH_CONFIG": json.dumps({"auths": {"registry.invalid": {"auth": LOGIN}}}),
    "REGISTRY_PASSWORD": "planted-registry-password",
    "UV_INDEX_PRIVATE_PASSWORD": "planted-index-password",
    "HF_TOKEN": "planted-hub-token",
    "HTTP_PASSWORD": "planted-proxy-password",
}
PLANTED = [text.encode() for text in (*SECRETS.values(), LOGIN) if text != SECRETS["DOCKER_AUTH_CONFIG"]]

PLANTED += [b"planted-engine"]

PRINT_ENVIRONMENT = "env; tr '\\0' '\\n' < /proc/self/environ"
PRINT_ENVIRONMENT_IN_CONTAINER = (
    f"{PRINT_ENVIRONMENT}; tr '\\0' '\\n' < /proc/1/environ; cat /proc/mounts; ls -R /run /var/run"
)
"""A job that prints its environment and its files."""


@dataclass
class Run:
    """A server whose environment contains secrets, and the visible data of its jobs."""

    local: LocalServer
    containers: list[Mapping[str, Any]]
    descriptions_and_logs: list[object]

    def train(self, script: str, **members: Any) -> None:
        name = self.local.start_training(script, **members)
        describe = self.local.sagemaker.describe_training_job
        while (job := describe(TrainingJobName=name))["TrainingJobStatus"] == "InProgress":
            self.record_containers()
        self.descriptions_and_logs += [job, self.local.read_logs("TrainingJobs", name)]

    def serve(self) -> None:
        """Create an endpoint whose image finds no model."""
        name, sagemaker = unique("endpoint"), self.local.sagemaker
        sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": image_name(SHELL)})
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        while (endpoint := sagemaker.describe_endpoint(EndpointName=name))["EndpointStatus"] == "Creating":
            self.record_containers()
        self.descriptions_and_logs.append(endpoint)

    def record_containers(self) -> None:
        if self.local.address.runtime == "process":
            return
        with suppress(docker.errors.NotFound):  # removed meanwhile
            self.containers += [container.attrs for container in list_containers(self.local.home)]

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """Return all visible data by source."""
        for path in self.local.home.root.rglob("*"):
            in_packages = "site-packages" in path.parts
            if path.is_file() and not path.is_symlink() and not in_packages:
                yield str(path), path.read_bytes()
        yield "a container", json.dumps(self.containers).encode()
        yield "a description or a log", json.dumps(self.descriptions_and_logs, default=str).encode()


@pytest.fixture(scope="module", params=["docker", "process"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a job that prints its environment, a job that fails, a job whose image does not exist, and an endpoint."""
    folder: Path = tmp_path_factory.mktemp("secrets")
    (folder / "config.json").write_text(json.dumps({"auths": {"registry.invalid": {"auth": LOGIN}}}))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SECRETS, "DOCKER_CONFIG": str(folder)}.items():
            patch.setenv(name, value)
        if request.param == "process":
            patch.setenv("DOCKER_HOST", "tcp://planted-engine:2375")
        with running_server(folder / "home", runtime=request.param) as local:
            script = PRINT_ENVIRONMENT if request.param == "process" else PRINT_ENVIRONMENT_IN_CONTAINER
            run = Run(local, [], [])
            run.train(f"{script}; env > {LAYOUT.model}/env; sleep 1")
            run.train(f"{script}; env > {LAYOUT.output}/failure; exit 3")
            run.train("true", algorithm={"TrainingImage": "registry.invalid/planted:1"})
            run.serve()
            yield run


def test_secrets_do_not_leak(run: Run) -> None:
    assert [(where, secret) for where, content in run.everything() for secret in PLANTED if secret in content] == []


def test_jobs_print_their_environment(run: Run) -> None:
    """Check that the search could have found secrets."""
    text = json.dumps(run.descriptions_and_logs, default=str)
    assert f"AWS_ACCESS_KEY_ID={run.local.home.credentials().access_key_id}" in text
    assert "exit code: 3" in text
    assert "registry.invalid/planted:1" in text
    assert run.local.home.server_log.name in {Path(where).name for where, _ in run.everything()}


def test_jobs_cannot_access_the_engine(run: Run) -> None:
    text = json.dumps(run.descriptions_and_logs, default=str)
    for word in ("docker.sock", "DOCKER_", "containerd.sock", "podman.sock"):
        assert word not in text


def test_containers_have_no_privileges(run: Run) -> None:
    assert bool(run.containers) == (run.local.address.runtime == "docker")
    for container in run.containers:
        host = container["HostConfig"]
        is_guard = GUARD_LABEL in container["Config"]["Labels"]
        added = [name.removeprefix("CAP_") for name in host["CapAdd"] or []]
        assert added == (["NET_ADMIN"] if is_guard else [])  # for the firewall of its own network
        assert not any(host[name] for name in ("Privileged", "PidMode", "Devices", "VolumesFrom"))
        assert not [bind for bind in host["Binds"] or [] if bind.startswith("/")]
        assert host["NetworkMode"] != "host"
        assert [mount for mount in container["Mounts"] if mount["Type"] != "volume"] == []
