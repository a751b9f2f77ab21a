"""Jobs on several hosts, while an attacker on this machine listens on all default ports, or is the first to connect to
each host."""

import contextlib
import io
import os
import pickle
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import numpy as np
import pytest

from microjobs.contract import Layout
from microjobs.network import DASK_PORT, HEARTBEAT_PORT, TENSORFLOW_PORT, TORCH_PORT
from tests.conftest import make_image_name
from tests.local.clients import (
    FINAL_STATUSES,
    ROOT,
    LocalServer,
    make_processing_input,
    make_processing_output,
    make_unique_name,
)
from tests.local.machine import Address, list_containers, list_listening_addresses
from tests.polling import wait_until

LAYOUT = Layout()
DEFAULT_PORTS = (DASK_PORT, HEARTBEAT_PORT, TORCH_PORT, TENSORFLOW_PORT)
HOST_COUNT = 3
POLL_INTERVAL_SECONDS = 0.05
"""Seconds between two searches for new ports. A search is slow, because it reads the state of all processes."""
FIRST_HOST_CONDITION = f"""grep -q '"current_host": "algo-1"' {ROOT}/config/resourceconfig.json"""
DELAY_SCRIPT = f"{FIRST_HOST_CONDITION} || sleep 2; exec python -m microjobs"
"""A shell script that delays all hosts except the first one. So an attacker can connect to the first host before the
other hosts do."""


DASK_PROGRAM = (
    "import time; from dask.distributed import Client; client = Client(); time.sleep(2); "
    "assert client.submit(sum, range(5)).result() == 10"
)


class Payload:
    """An object whose pickle connects to an address when it is unpickled."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def __reduce__(self) -> tuple[Any, ...]:
        return socket.create_connection, (self._address,)


class Attacker:
    """A program that connects to a job's hosts as soon as they listen, and claims to be algo-2.

    It tries all listening ports of processes, and the Dask and heartbeat ports of containers.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._closing = threading.Event()
        self._connections: dict[Address, socket.socket] = {}
        self._trap = socket.create_server(("", 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def has_executed_code(self) -> bool:
        """Return whether a host has unpickled the payload, which then connects to the trap."""
        self._trap.settimeout(1)
        try:
            self._trap.accept()[0].close()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        for connection in (*self._connections.values(), self._trap):
            connection.close()

    def _run(self) -> None:
        with ThreadPoolExecutor(100) as pool:
            while not self._closing.wait(POLL_INTERVAL_SECONDS):
                for address in self._find_addresses() - self._connections.keys():
                    with contextlib.suppress(OSError):
                        self._connections[address] = socket.create_connection(address, timeout=5)
                        pool.submit(self._attack, self._connections[address])

    def _find_addresses(self) -> set[Address]:
        if self._server.address.runtime == "process":
            return list_listening_addresses(str(self._server.home.root / "work"))
        return _find_container_addresses(self._server)

    def _attack(self, connection: socket.socket) -> None:
        """Greet without a secret, and answer the first message with a pickle."""
        content = pickle.dumps(Payload((connection.getsockname()[0], self._trap.getsockname()[1])))
        with contextlib.suppress(OSError):
            connection.sendall(b"algo-2")
            with contextlib.suppress(TimeoutError):
                connection.recv(1 << 16)
            connection.sendall(struct.pack("!i", len(content)) + content)


def _find_container_addresses(server: LocalServer) -> set[Address]:
    try:
        containers = list_containers(server.home)
    except docker.errors.NotFound:  # the container was removed after it was listed
        return set()
    networks = [
        network for container in containers for network in container.attrs["NetworkSettings"]["Networks"].values()
    ]
    ip_addresses = [network["IPAddress"] for network in networks if network["IPAddress"]]
    return {(ip_address, port) for ip_address in ip_addresses for port in (DASK_PORT, HEARTBEAT_PORT)}


@pytest.fixture
def occupied_ports() -> Iterator[None]:
    """Listen on all default ports of this machine."""
    with contextlib.ExitStack() as stack:
        for port in DEFAULT_PORTS:
            with contextlib.suppress(OSError):  # another program already listens on the port
                stack.enter_context(socket.create_server(("0.0.0.0", port)))
        yield


def scale(server: LocalServer) -> tuple[dict[str, Any], str]:
    """Scale arrays with the image preprocess on several hosts. Return the job's description and its name, which is also
    the prefix of its output."""
    name = make_unique_name("scale")
    x = np.arange(60.0).reshape(20, 3)
    for array_name, values in (("x", x), ("y", x[:, 0])):
        for number, part in enumerate(np.split(values, 2)):
            buffer = io.BytesIO()
            np.save(buffer, part)
            key = f"{name}/raw/{array_name}_train-{number:05d}-of-00002.npy"
            server.s3.put_object(Bucket=server.address.bucket, Key=key, Body=buffer.getvalue())
    raw = make_processing_input("raw", server.uri(f"{name}/raw/"), str(LAYOUT.processing("input")), "ShardedByS3Key")
    server.sagemaker.create_processing_job(
        ProcessingJobName=name,
        AppSpecification={
            "ImageUri": make_image_name("preprocess"),
            "ContainerEntrypoint": ["/bin/sh", "-c"],
            "ContainerArguments": [DELAY_SCRIPT],
        },
        ProcessingInputs=[raw],
        ProcessingOutputConfig={
            "Outputs": [
                make_processing_output(split, server.uri(f"{name}/{split}"), str(LAYOUT.processing(split)))
                for split in ("train", "test")
            ]
        },
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": HOST_COUNT, "VolumeSizeInGB": 1}
        },
        RoleArn=server.address.role_arn,
    )
    job = wait_until(
        lambda: server.sagemaker.describe_processing_job(ProcessingJobName=name),
        lambda job: job["ProcessingJobStatus"] in FINAL_STATUSES,
    )
    return job, name


def assert_scaled(server: LocalServer, job: dict[str, Any], name: str) -> None:
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert len(list((server.bucket / name / "train").glob("x_train-*.npy"))) == 2


@pytest.mark.usefixtures("occupied_ports")
def test_job_succeeds_when_default_ports_are_occupied(process_server: LocalServer) -> None:
    assert_scaled(process_server, *scale(process_server))


@pytest.mark.slow
def test_attacker_that_connects_first_cannot_run_code(any_runtime_server: LocalServer) -> None:
    with contextlib.closing(Attacker(any_runtime_server)) as attacker:
        job, name = scale(any_runtime_server)
        assert attacker.connection_count
        assert not attacker.has_executed_code()
    assert_scaled(any_runtime_server, job, name)


@pytest.mark.usefixtures("occupied_ports")
@pytest.mark.slow
def test_attacker_cannot_run_code_in_a_dask_cluster(any_runtime_server: LocalServer) -> None:
    application = {
        "ImageUri": make_image_name("preprocess"),
        "ContainerEntrypoint": ["with-dask", "python3", "-c"],
        "ContainerArguments": [DASK_PROGRAM],
    }
    with contextlib.closing(Attacker(any_runtime_server)) as attacker:
        job = any_runtime_server.process("", instances=2, AppSpecification=application)
        assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
        assert attacker.connection_count
        assert not attacker.has_executed_code()


def test_secret_of_a_job_is_new_and_not_logged(any_runtime_server: LocalServer) -> None:
    """Descriptions and logs do not contain the secret, even if a job prints its environment."""
    script = f"cat {ROOT}/secret/job > {ROOT}/model/$(hostname); env"
    jobs = [any_runtime_server.train(script, instances=2) for _ in range(2)]
    names = [job["TrainingJobName"] for job in jobs]
    secrets_of_jobs = [set(any_runtime_server.read_archive(name).values()) for name in names]
    assert [len(secrets) for secrets in secrets_of_jobs] == [1, 1]
    assert secrets_of_jobs[0] != secrets_of_jobs[1]
    output_and_logs = str([jobs, [any_runtime_server.read_logs("TrainingJobs", name) for name in names]])
    assert not any(secret in output_and_logs for secrets in secrets_of_jobs for secret in secrets)


def test_only_the_user_of_the_server_can_read_the_secret(process_server: LocalServer) -> None:
    name = process_server.start_training("echo up; sleep 60", instances=2)
    process_server.wait_for_log(name, "up")
    files = list(process_server.home.work.rglob("secret/job"))
    assert len(files) >= 2
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
    assert {path.stat().st_uid for path in files} == {os.getuid()}
    process_server.sagemaker.stop_training_job(TrainingJobName=name)
    process_server.wait_for_end(name)


def test_one_host_needs_no_secret(process_server: LocalServer) -> None:
    job = process_server.train("test ! -e $SAGEMAKER_BASE_DIR/secret")
    assert job["TrainingJobStatus"] == "Completed"
