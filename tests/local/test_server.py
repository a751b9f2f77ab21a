"""Tests of the server's life cycle: start, restart, crash and stop."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from microjobs.contract import Layout
from microjobs_orchestrator.local import control, home_lock
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home, HomeError
from tests.local.clients import LocalServer, run_server
from tests.local.machine import list_container_names
from tests.polling import wait_until

LAYOUT = Layout()


def kill_server(server: LocalServer) -> None:
    """Kill a server, and wait until it has ended."""
    os.kill(server.address.pid, signal.SIGKILL)
    wait_until(lambda: control.find_server(server.home), lambda address: address is None)


@pytest.mark.slow
def test_second_server_for_a_home_is_refused(tmp_path: Path) -> None:
    with run_server(tmp_path / "home", runtime="process") as server, pytest.raises(control.ServerError) as error:
        control.start(server.home, Config(port=0, runtime="process"))
    assert "another server uses" in str(error.value)


def test_port_in_use_is_reported(tmp_path: Path) -> None:
    with run_server(tmp_path / "one", runtime="process") as server, pytest.raises(control.ServerError) as error:
        control.start(
            Home(tmp_path / "two"), Config(port=int(server.address.url.rpartition(":")[2]), runtime="process")
        )
    assert re.match(
        r"the server did not start: cannot listen on .*: Address already in use; use another --port", str(error.value)
    )


@pytest.mark.parametrize("is_killed", [False, True], ids=["stop", "kill"])
def test_port_is_free_after_the_end_of_a_server_with_open_connections(tmp_path: Path, is_killed: bool) -> None:
    with run_server(tmp_path / "home", runtime="process") as server, ExitStack() as clients:
        port = int(server.address.url.rpartition(":")[2])
        for _ in range(3):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1)
        kill_server(server) if is_killed else control.stop(server.home)
        sockets = Path("/proc/net/tcp").read_text(encoding="ascii")
        assert f"0100007F:{port:04X}" in sockets  # the connections of the old server still use the port
        address = control.start(server.home, Config(port=port, runtime="process"))
        assert int(address.url.rpartition(":")[2]) == port


def test_environment_is_sufficient_for_clients(tmp_path: Path) -> None:
    with run_server(tmp_path / "home", runtime="process") as server:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            **control.make_environment(server.home, server.address),
        }
        script = (
            "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])\n"
            "print(boto3.client('s3').list_buckets()['Buckets'][0]['Name'])"
        )
        output = subprocess.run(
            ["python", "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout
    assert output.split() == ["000000000000", server.address.bucket]


def test_server_stops_after_its_only_user_is_killed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    script = f"""
import time
from pathlib import Path
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.control import use_server
with use_server(Home(Path({str(home.root)!r})), Config(port=0, runtime="process")):
    time.sleep(100)
"""
    user = subprocess.Popen([sys.executable, "-c", script])
    wait_until(lambda: control.find_server(home), lambda address: address is not None)
    user.kill()
    user.wait()
    wait_until(home.server_file.exists, lambda exists: not exists)


def test_interrupted_start_leaves_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_interrupt(_: Home) -> None:
        raise KeyboardInterrupt

    home = Home(tmp_path / "home")
    monkeypatch.setattr(control, "find_server", raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        control.start(home, Config(port=0, runtime="process"))
    *_, process = control._children.values()
    assert process.wait(30) in (0, -signal.SIGTERM)
    assert not home.server_file.exists()


def test_shared_server_stops_with_its_last_user(tmp_path: Path) -> None:
    home, config = Home(tmp_path / "home"), Config(port=0, runtime="process")
    first_user, second_user = control.use_server(home, config), control.use_server(home, config)
    address = first_user.__enter__()
    assert second_user.__enter__() == address
    first_user.__exit__(None, None, None)
    time.sleep(1)
    assert control.find_server(home) == address
    second_user.__exit__(None, None, None)
    wait_until(home.server_file.exists, lambda exists: not exists)


FIFO = None
"""Stands for a named pipe in place of a file. A reader of a pipe would block forever."""
INVALID_CONTENTS = [
    FIFO,
    b"",
    b"[]",
    b"{}",
    b'"x"',
    b"5",
    b"\xff",
    b"[" * 100_000,
    b'{"pid": 1}',
    b'{"access_key_id": 5}',
]


def write_content(path: Path, content: bytes | None) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600) if content is FIFO else path.write_bytes(content)


@pytest.mark.parametrize("content", INVALID_CONTENTS)
def test_damaged_server_file_counts_as_no_server(tmp_path: Path, content: bytes | None) -> None:
    home = Home(tmp_path / "home")
    home.create()
    write_content(home.server_file, content)
    with home_lock.hold(home):
        assert control.find_server(home) is None
    assert not control.stop(home)


@pytest.mark.parametrize("content", [*INVALID_CONTENTS, b'{"access_key_id": "", "secret_access_key": null}'])
@pytest.mark.parametrize("name", ["credentials.json", "server.key"])
def test_damaged_secret_error_names_the_remedy(tmp_path: Path, name: str, content: bytes | None) -> None:
    home = Home(tmp_path / "home")
    home.create()
    write_content(home.root / name, content)
    with pytest.raises(HomeError, match=rf"{name} is damaged .*: remove it"):
        home.credentials() if name == "credentials.json" else home.server_key()


@pytest.mark.parametrize("name", ["s3", "logs", "work", "objects"])
def test_error_about_a_file_in_place_of_a_folder_names_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    tmp_path.chmod(0o700)
    with pytest.raises(HomeError, match=f"{name} is not a folder: move it away"):
        Home(tmp_path).create()


def test_only_the_owner_can_access_the_home(tmp_path: Path) -> None:
    with run_server(tmp_path / "home", runtime="process") as server:
        assert server.home.root.stat().st_mode & 0o777 == 0o700
        assert (server.home.root / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_incomplete_packages_are_removed_at_the_start(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    incomplete_file = home.packages / "partial" / "tmp1"
    incomplete_file.parent.mkdir(parents=True)
    incomplete_file.touch()
    with run_server(home.root, runtime="process"):
        assert not incomplete_file.exists()


@pytest.mark.engine
def test_resources_survive_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with run_server(home, runtime="docker") as server:
        job = server.train(f"echo hello; echo w > {LAYOUT.model}/weights", Tags=[{"Key": "a", "Value": "b"}])
    with run_server(home, runtime="docker") as next_server:
        name = job["TrainingJobName"]
        assert next_server.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Completed"
        assert next_server.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"] == [
            {"Key": "a", "Value": "b"}
        ]
        assert next_server.read_logs("TrainingJobs", name) == {"algo-1": ["hello"]}
        key = f"models/{name}/output/model.tar.gz"
        assert next_server.s3.head_object(Bucket=next_server.address.bucket, Key=key)["ContentLength"] > 0


PRINT_80_LINES = "for n in $(seq 80); do echo line $n; sleep 0.1; done; echo done > {}/end"


@pytest.mark.engine
def test_running_job_is_resumed_after_a_crash(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    server = LocalServer(home, control.start(home, Config(port=0, runtime="docker")))
    name = server.start_training(PRINT_80_LINES.format(LAYOUT.model))
    wait_until(lambda: server.read_logs("TrainingJobs", name), lambda lines: len(lines.get("algo-1", [])) > 20)
    kill_server(server)
    time.sleep(1)
    with run_server(home.root, runtime="docker") as next_server:
        assert next_server.wait_for_end(name)["TrainingJobStatus"] == "Completed"
        assert next_server.read_logs("TrainingJobs", name)["algo-1"] == [f"line {number}" for number in range(1, 81)]
    assert list_container_names(home) == []


@pytest.mark.engine
def test_job_without_a_container_fails_after_a_crash(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    server = LocalServer(home, control.start(home, Config(port=0, runtime="docker")))
    name = server.start_training("sleep 60")
    wait_until(lambda: list_container_names(home), lambda names: len(names) == 1)
    kill_server(server)
    subprocess.run(["docker", "rm", "-f", *list_container_names(home)], check=True, capture_output=True)
    with run_server(home.root, runtime="docker") as next_server:
        assert "the local server ended while the job ran" in next_server.wait_for_end(name)["FailureReason"]


@pytest.mark.engine
def test_stop_of_the_server_stops_jobs_and_removes_containers(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with run_server(home, runtime="docker") as server:
        name = server.start_training("trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done", instances=2)
        wait_until(lambda: list_container_names(server.home), lambda names: len(names) == 2)
    assert list_container_names(server.home) == []
    assert list(server.home.work.iterdir()) == []
    with run_server(home, runtime="docker") as next_server:
        assert "was shut down" in next_server.wait_for_end(name)["FailureReason"]


def test_stop_of_the_server_ends_waiting_consumers(tmp_path: Path) -> None:
    wait_seconds = 20
    with run_server(tmp_path / "home", runtime="process") as server, ThreadPoolExecutor() as pool:
        sqs = server.client("sqs")
        url = sqs.create_queue(QueueName="queue")["QueueUrl"]
        start_time = time.monotonic()
        consumers = [pool.submit(sqs.receive_message, QueueUrl=url, WaitTimeSeconds=wait_seconds) for _ in range(4)]
        time.sleep(1)
        assert not any(consumer.done() for consumer in consumers)
        control.stop(server.home)
        assert all("Messages" not in consumer.result() for consumer in consumers)
        assert time.monotonic() - start_time < wait_seconds
        assert "Traceback" not in server.home.server_log.read_text(encoding="utf-8")


@pytest.mark.engine
def test_server_answers_while_ten_jobs_run(server: LocalServer) -> None:
    names = [server.start_training("sleep 3") for _ in range(10)]
    max_seconds = 0.0
    while any(
        server.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "InProgress"
        for name in names
    ):
        start_time = time.monotonic()
        server.s3.list_buckets()
        max_seconds = max(max_seconds, time.monotonic() - start_time)
    assert {server.wait_for_end(name)["TrainingJobStatus"] for name in names} == {"Completed"}
    assert max_seconds < 5


def test_unknown_operation_lists_supported_operations(tmp_path: Path) -> None:
    with run_server(tmp_path / "home", runtime="process") as server, pytest.raises(ClientError) as error:
        server.sagemaker.create_cluster(ClusterName="x")
    assert "CreateTrainingJob" in str(error.value)


@pytest.mark.engine
def test_container_without_a_job_is_removed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    server = LocalServer(home, control.start(home, Config(port=0, runtime="docker")))
    server.start_training("sleep 60")
    wait_until(lambda: list_container_names(home), lambda names: len(names) == 1)
    kill_server(server)
    for file in home.root.glob("state.db*"):
        file.unlink()
    with run_server(home.root, runtime="docker"):
        wait_until(lambda: list_container_names(home), lambda names: names == [])
