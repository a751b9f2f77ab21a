"""The life cycle of the server: start, restart, crash and stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from microjobs.contract import Layout
from microjobs_orchestrator.local import control, home_lock
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home, HomeError
from tests.local.clients import LocalServer, running_server, wait_until
from tests.local.machine import container_names

LAYOUT = Layout()


def crash(local: LocalServer) -> None:
    os.kill(local.address.pid, signal.SIGKILL)
    wait_until(lambda: control.find_server(local.home), lambda address: address is None)


def test_second_server_for_a_home_is_refused(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", runtime="process") as local, pytest.raises(control.ServerError) as caught:
        control.start(local.home, Config(port=0, runtime="process"))
    assert "another server uses" in str(caught.value)


def test_port_in_use_is_reported(tmp_path: Path) -> None:
    with running_server(tmp_path / "one", runtime="process") as local, pytest.raises(control.ServerError) as caught:
        control.start(Home(tmp_path / "two"), Config(port=int(local.address.url.rpartition(":")[2]), runtime="process"))
    assert "Address already in use; use another --port" in str(caught.value)


def test_environment_is_sufficient_for_clients(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", runtime="process") as local:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            **control.make_environment(local.home, local.address),
        }
        script = (
            "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])\n"
            "print(boto3.client('s3').list_buckets()['Buckets'][0]['Name'])"
        )
        output = subprocess.run(
            ["python", "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout
    assert output.split() == ["000000000000", local.address.bucket]


def test_server_stops_after_its_launcher_is_killed(tmp_path: Path) -> None:
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
    launcher = subprocess.Popen([sys.executable, "-c", script])
    wait_until(lambda: control.find_server(home), lambda address: address is not None, seconds=30)
    launcher.kill()
    launcher.wait()
    wait_until(home.server_file.exists, lambda exists: not exists, seconds=30)


def test_interrupted_start_leaves_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Home) -> None:
        raise KeyboardInterrupt

    home = Home(tmp_path / "home")
    monkeypatch.setattr(control, "find_server", interrupted)
    with pytest.raises(KeyboardInterrupt):
        control.start(home, Config(port=0, runtime="process"))
    *_, process = control._children.values()
    assert process.wait(30) in (0, -signal.SIGTERM)
    assert not home.server_file.exists()


def test_shared_server_stops_with_its_last_user(tmp_path: Path) -> None:
    home, config = Home(tmp_path / "home"), Config(port=0, runtime="process")
    first, second = control.use_server(home, config), control.use_server(home, config)
    address = first.__enter__()
    assert second.__enter__() == address
    first.__exit__(None, None, None)
    time.sleep(1)
    assert control.find_server(home) == address
    second.__exit__(None, None, None)
    wait_until(home.server_file.exists, lambda exists: not exists, seconds=30)


FIFO = None
"""Stands for a named pipe in place of a file: a reader would block forever."""
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


def put(path: Path, content: bytes | None) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600) if content is FIFO else path.write_bytes(content)


@pytest.mark.parametrize("content", INVALID_CONTENTS)
def test_damaged_server_file_counts_as_no_server(tmp_path: Path, content: bytes | None) -> None:
    home = Home(tmp_path / "home")
    home.create()
    put(home.server_file, content)
    with home_lock.hold(home):
        assert control.find_server(home) is None
    assert not control.stop(home)


@pytest.mark.parametrize("content", [*INVALID_CONTENTS, b'{"access_key_id": "", "secret_access_key": null}'])
@pytest.mark.parametrize("name", ["credentials.json", "server.key"])
def test_damaged_secret_error_names_the_remedy(tmp_path: Path, name: str, content: bytes | None) -> None:
    home = Home(tmp_path / "home")
    home.create()
    put(home.root / name, content)
    with pytest.raises(HomeError, match=rf"{name} is damaged .*: remove it"):
        home.credentials() if name == "credentials.json" else home.server_key()


@pytest.mark.parametrize("name", ["s3", "logs", "work", "objects"])
def test_error_about_a_file_in_place_of_a_folder_names_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    tmp_path.chmod(0o700)
    with pytest.raises(HomeError, match=f"{name} is not a folder: move it away"):
        Home(tmp_path).create()


def test_only_the_owner_can_access_the_home(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", runtime="process") as local:
        assert local.home.root.stat().st_mode & 0o777 == 0o700
        assert (local.home.root / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_incomplete_packages_are_removed_at_the_start(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    partial = home.packages / "partial" / "tmp1"
    partial.parent.mkdir(parents=True)
    partial.touch()
    with running_server(home.root, runtime="process"):
        assert not partial.exists()


@pytest.mark.engine
def test_resources_survive_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running_server(home, runtime="docker") as local:
        job = local.train(f"echo hello; echo w > {LAYOUT.model}/weights", Tags=[{"Key": "a", "Value": "b"}])
    with running_server(home, runtime="docker") as restarted:
        name = job["TrainingJobName"]
        assert restarted.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Completed"
        assert restarted.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"] == [{"Key": "a", "Value": "b"}]
        assert restarted.read_logs("TrainingJobs", name) == {"algo-1": ["hello"]}
        key = f"models/{name}/output/model.tar.gz"
        assert restarted.s3.head_object(Bucket=restarted.address.bucket, Key=key)["ContentLength"] > 0


PRINT_80_LINES = "for n in $(seq 80); do echo line $n; sleep 0.1; done; echo done > {}/end"


@pytest.mark.engine
def test_running_job_is_resumed_after_a_crash(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    local = LocalServer(home, control.start(home, Config(port=0, runtime="docker")))
    name = local.start_training(PRINT_80_LINES.format(LAYOUT.model))
    wait_until(lambda: local.read_logs("TrainingJobs", name), lambda lines: len(lines.get("algo-1", [])) > 20)
    crash(local)
    time.sleep(1)
    with running_server(home.root, runtime="docker") as restarted:
        assert restarted.wait_for_end(name)["TrainingJobStatus"] == "Completed"
        assert restarted.read_logs("TrainingJobs", name)["algo-1"] == [f"line {number}" for number in range(1, 81)]
    assert container_names(home) == []


@pytest.mark.engine
def test_job_without_a_container_fails_after_a_crash(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    local = LocalServer(home, control.start(home, Config(port=0, runtime="docker")))
    name = local.start_training("sleep 60")
    wait_until(lambda: container_names(home), lambda names: len(names) == 1)
    crash(local)
    subprocess.run(["docker", "rm", "-f", *container_names(home)], check=True, capture_output=True)
    with running_server(home.root, runtime="docker") as restarted:
        assert "the local server ended while the job ran" in restarted.wait_for_end(name)["FailureReason"]


@pytest.mark.engine
def test_stop_of_the_server_stops_jobs_and_removes_containers(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running_server(home, runtime="docker") as local:
        name = local.start_training("trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done", instances=2)
        wait_until(lambda: container_names(local.home), lambda names: len(names) == 2)
    assert container_names(local.home) == []
    assert list(local.home.work.iterdir()) == []
    with running_server(home, runtime="docker") as restarted:
        assert "was shut down" in restarted.wait_for_end(name)["FailureReason"]


@pytest.mark.engine
def test_server_answers_while_ten_jobs_run(local: LocalServer) -> None:
    names = [local.start_training("sleep 3") for _ in range(10)]
    slowest = 0.0
    while any(
        local.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "InProgress"
        for name in names
    ):
        began = time.monotonic()
        local.s3.list_buckets()
        slowest = max(slowest, time.monotonic() - began)
    assert {local.wait_for_end(name)["TrainingJobStatus"] for name in names} == {"Completed"}
    assert slowest < 5


def test_unknown_operation_lists_supported_operations(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", runtime="process") as local, pytest.raises(ClientError) as caught:
        local.sagemaker.create_cluster(ClusterName="x")
    assert "CreateTrainingJob" in str(caught.value)


@pytest.mark.engine
def test_container_without_a_job_is_removed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    local = LocalServer(home, control.start(home, Config(port=0, runtime="docker")))
    local.start_training("sleep 60")
    wait_until(lambda: container_names(home), lambda names: len(names) == 1)
    crash(local)
    for file in home.root.glob("state.db*"):
        file.unlink()
    with running_server(home.root, runtime="docker"):
        wait_until(lambda: container_names(home), lambda names: names == [], seconds=30)
