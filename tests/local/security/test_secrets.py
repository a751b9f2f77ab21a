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
from tests.conftest import make_image_name
from tests.local.clients import SHELL_IMAGE, LocalServer, make_unique_name, run_server
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
PLANTED_SECRETS = [text.encode() for text in (*SECRETS.values(), LOGIN) if text != SECRETS["DOCKER_AUTH_CONFIG"]]
PLANTED_SECRETS += [b"planted-engine"]
"""Texts that must not occur anywhere. LOGIN is the secret part of DOCKER_AUTH_CONFIG, and `planted-engine` is the host
name in DOCKER_HOST."""

ENVIRONMENT_SCRIPT = "env; tr '\\0' '\\n' < /proc/self/environ"
CONTAINER_SCRIPT = f"{ENVIRONMENT_SCRIPT}; tr '\\0' '\\n' < /proc/1/environ; cat /proc/mounts; ls -R /run /var/run"
"""A script that prints the environment and the files of a container."""


@dataclass
class RecordingServer:
    """A server whose environment contains secrets, with a record of the data that its jobs and containers show."""

    server: LocalServer
    containers: list[Mapping[str, Any]]
    descriptions_and_logs: list[object]

    def train(self, script: str, **members: Any) -> None:
        name = self.server.start_training(script, **members)
        describe = self.server.sagemaker.describe_training_job
        while (job := describe(TrainingJobName=name))["TrainingJobStatus"] == "InProgress":
            self.record_containers()
        self.descriptions_and_logs += [job, self.server.read_logs("TrainingJobs", name)]

    def serve(self) -> None:
        """Create an endpoint whose image finds no model."""
        name, sagemaker = make_unique_name("endpoint"), self.server.sagemaker
        sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": make_image_name(SHELL_IMAGE)})
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        while (endpoint := sagemaker.describe_endpoint(EndpointName=name))["EndpointStatus"] == "Creating":
            self.record_containers()
        self.descriptions_and_logs.append(endpoint)

    def record_containers(self) -> None:
        if self.server.address.runtime == "process":
            return
        with suppress(docker.errors.NotFound):  # the container was removed after it was listed
            self.containers += [container.attrs for container in list_containers(self.server.home)]

    def list_visible_data(self) -> Iterator[tuple[str, bytes]]:
        """Yield the source and the content of all data that could contain a secret."""
        for path in self.server.home.root.rglob("*"):
            is_package = "site-packages" in path.parts
            if path.is_file() and not path.is_symlink() and not is_package:
                yield str(path), path.read_bytes()
        yield "a container", json.dumps(self.containers).encode()
        yield "a description or a log", json.dumps(self.descriptions_and_logs, default=str).encode()


@pytest.fixture(scope="module", params=["docker", "process"])
def recording_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RecordingServer]:
    """A server that has run an endpoint, and jobs that print their environment, fail, or name a missing image."""
    folder: Path = tmp_path_factory.mktemp("secrets")
    (folder / "config.json").write_text(json.dumps({"auths": {"registry.invalid": {"auth": LOGIN}}}))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SECRETS, "DOCKER_CONFIG": str(folder)}.items():
            patch.setenv(name, value)
        if request.param == "process":
            patch.setenv("DOCKER_HOST", "tcp://planted-engine:2375")
        with run_server(folder / "home", runtime=request.param) as server:
            script = ENVIRONMENT_SCRIPT if request.param == "process" else CONTAINER_SCRIPT
            recording_server = RecordingServer(server, [], [])
            recording_server.train(f"{script}; env > {LAYOUT.model}/env; sleep 1")
            recording_server.train(f"{script}; env > {LAYOUT.output}/failure; exit 3")
            recording_server.train("true", algorithm={"TrainingImage": "registry.invalid/planted:1"})
            recording_server.serve()
            yield recording_server


def test_secrets_do_not_leak(recording_server: RecordingServer) -> None:
    assert [
        (source, secret)
        for source, content in recording_server.list_visible_data()
        for secret in PLANTED_SECRETS
        if secret in content
    ] == []


def test_jobs_print_their_environment(recording_server: RecordingServer) -> None:
    """Check that the search could have found secrets."""
    text = json.dumps(recording_server.descriptions_and_logs, default=str)
    assert f"AWS_ACCESS_KEY_ID={recording_server.server.home.credentials().access_key_id}" in text
    assert "exit code: 3" in text
    assert "registry.invalid/planted:1" in text
    assert recording_server.server.home.server_log.name in {
        Path(source).name for source, _ in recording_server.list_visible_data()
    }


def test_output_of_jobs_does_not_mention_the_engine(recording_server: RecordingServer) -> None:
    text = json.dumps(recording_server.descriptions_and_logs, default=str)
    for word in ("docker.sock", "DOCKER_", "containerd.sock", "podman.sock"):
        assert word not in text


def test_containers_have_no_privileges(recording_server: RecordingServer) -> None:
    assert bool(recording_server.containers) == (recording_server.server.address.runtime == "docker")
    for container in recording_server.containers:
        host = container["HostConfig"]
        is_guard = GUARD_LABEL in container["Config"]["Labels"]
        capabilities = [name.removeprefix("CAP_") for name in host["CapAdd"] or []]
        # a guard needs the capability for the firewall of its own network
        assert capabilities == (["NET_ADMIN"] if is_guard else [])
        assert not any(host[name] for name in ("Privileged", "PidMode", "Devices", "VolumesFrom"))
        assert not [bind for bind in host["Binds"] or [] if bind.startswith("/")]
        assert host["NetworkMode"] != "host"
        assert [mount for mount in container["Mounts"] if mount["Type"] != "volume"] == []
