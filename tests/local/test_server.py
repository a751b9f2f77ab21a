"""The server's life: started, found, restarted, ended, and what is left of it."""

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
from tests.local.clients import LocalServer, started, wait_until
from tests.local.machine import container_names

ML = Layout()


def crash(local: LocalServer) -> None:
    os.kill(local.address.pid, signal.SIGKILL)
    wait_until(lambda: control.find_server(local.home), lambda address: address is None)


def test_second_server_on_one_folder_is_refused(tmp_path: Path) -> None:
    with started(tmp_path / "home", runtime="process") as local, pytest.raises(control.ServerError) as refused:
        control.start(local.home, Config(port=0, runtime="process"))
    assert "another server uses" in str(refused.value)


def test_taken_port_is_told(tmp_path: Path) -> None:
    with started(tmp_path / "one", runtime="process") as local, pytest.raises(control.ServerError) as refused:
        control.start(Home(tmp_path / "two"), Config(port=int(local.address.url.rpartition(":")[2]), runtime="process"))
    assert "Address already in use; use another --port" in str(refused.value)


def test_env_is_all_that_a_client_needs(tmp_path: Path) -> None:
    with started(tmp_path / "home", runtime="process") as local:
        given = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            **control.make_environment(local.home, local.address),
        }
        script = (
            "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])\n"
            "print(boto3.client('s3').list_buckets()['Buckets'][0]['Name'])"
        )
        said = subprocess.run(["python", "-c", script], env=given, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["000000000000", local.address.bucket]


def test_server_of_a_killed_launcher_ends(tmp_path: Path) -> None:
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
    wait_until(home.server.exists, lambda there: not there, seconds=30)


def test_start_that_is_interrupted_leaves_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Home) -> None:
        raise KeyboardInterrupt

    home = Home(tmp_path / "home")
    monkeypatch.setattr(control, "find_server", interrupted)
    with pytest.raises(KeyboardInterrupt):
        control.start(home, Config(port=0, runtime="process"))
    *_, process = control._children.values()
    assert process.wait(30) in (0, -signal.SIGTERM)
    assert not home.server.exists()


def test_server_of_several_runs_ends_with_the_last_one(tmp_path: Path) -> None:
    home, config = Home(tmp_path / "home"), Config(port=0, runtime="process")
    first, second = control.use_server(home, config), control.use_server(home, config)
    address = first.__enter__()
    assert second.__enter__() == address
    first.__exit__(None, None, None)
    time.sleep(1)
    assert control.find_server(home) == address
    second.__exit__(None, None, None)
    wait_until(home.server.exists, lambda there: not there, seconds=30)


FIFO = None
"""Stands for a pipe in a file's place: who reads it waits for ever."""
NO_OBJECTS = [FIFO, b"", b"[]", b"{}", b'"x"', b"5", b"\xff", b"[" * 100_000, b'{"pid": 1}', b'{"access_key_id": 5}']


def put(path: Path, content: bytes | None) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600) if content is FIFO else path.write_bytes(content)


@pytest.mark.parametrize("content", NO_OBJECTS)
def test_damaged_address_is_none(tmp_path: Path, content: bytes | None) -> None:
    home = Home(tmp_path / "home")
    home.create()
    put(home.server, content)
    with home_lock.hold(home):
        assert control.find_server(home) is None
    assert not control.stop(home)


@pytest.mark.parametrize("content", [*NO_OBJECTS, b'{"access_key_id": "", "secret_access_key": null}'])
@pytest.mark.parametrize("name", ["credentials.json", "server.key"])
def test_damaged_secret_is_named_with_a_remedy(tmp_path: Path, name: str, content: bytes | None) -> None:
    home = Home(tmp_path / "home")
    home.create()
    put(home.root / name, content)
    with pytest.raises(HomeError, match=rf"{name} cannot be used .*: remove it"):
        home.credentials() if name == "credentials.json" else home.server_key()


@pytest.mark.parametrize("name", ["s3", "logs", "work", "objects"])
def test_file_in_place_of_a_folder_is_named_with_a_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    tmp_path.chmod(0o700)
    with pytest.raises(HomeError, match=f"{name} is not a folder: move it away"):
        Home(tmp_path).create()


def test_folder_is_its_owners_alone(tmp_path: Path) -> None:
    with started(tmp_path / "home", runtime="process") as local:
        assert local.home.root.stat().st_mode & 0o777 == 0o700
        assert (local.home.root / "credentials.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.engine
def test_everything_survives_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started(home, runtime="docker") as local:
        job = local.train(f"echo hello; echo w > {ML.model}/weights", Tags=[{"Key": "a", "Value": "b"}])
    with started(home, runtime="docker") as again:
        name = job["TrainingJobName"]
        assert again.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Completed"
        assert again.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"] == [{"Key": "a", "Value": "b"}]
        assert again.output("TrainingJobs", name) == {"algo-1": ["hello"]}
        key = f"models/{name}/output/model.tar.gz"
        assert again.s3.head_object(Bucket=again.address.bucket, Key=key)["ContentLength"] > 0


COUNT = "for n in $(seq 80); do echo line $n; sleep 0.1; done; echo done > {}/end"


@pytest.mark.engine
def test_running_job_is_taken_up_after_a_crash(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    local = LocalServer(home, control.start(home, Config(port=0, runtime="docker")))
    name = local.start_training(COUNT.format(ML.model))
    wait_until(lambda: local.output("TrainingJobs", name), lambda lines: len(lines.get("algo-1", [])) > 20)
    crash(local)
    time.sleep(1)
    with started(home.root, runtime="docker") as again:
        assert again.ended(name)["TrainingJobStatus"] == "Completed"
        assert again.output("TrainingJobs", name)["algo-1"] == [f"line {number}" for number in range(1, 81)]
    assert container_names(home) == []


@pytest.mark.engine
def test_job_that_vanished_during_a_crash_is_failed_with_the_reason(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    local = LocalServer(home, control.start(home, Config(port=0, runtime="docker")))
    name = local.start_training("sleep 60")
    wait_until(lambda: container_names(home), lambda names: len(names) == 1)
    crash(local)
    subprocess.run(["docker", "rm", "-f", *container_names(home)], check=True, capture_output=True)
    with started(home.root, runtime="docker") as again:
        assert "the local server ended while the job ran" in again.ended(name)["FailureReason"]


@pytest.mark.engine
def test_end_of_the_server_ends_jobs_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started(home, runtime="docker") as local:
        name = local.start_training("trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done", instances=2)
        wait_until(lambda: container_names(local.home), lambda names: len(names) == 2)
    assert container_names(local.home) == []
    assert list(local.home.work.iterdir()) == []
    with started(home, runtime="docker") as again:
        assert "was shut down" in again.ended(name)["FailureReason"]


@pytest.mark.engine
def test_ten_jobs_run_at_once_and_the_server_answers(local: LocalServer) -> None:
    names = [local.start_training("sleep 3") for _ in range(10)]
    slowest = 0.0
    while any(
        local.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "InProgress"
        for name in names
    ):
        began = time.monotonic()
        local.s3.list_buckets()
        slowest = max(slowest, time.monotonic() - began)
    assert {local.ended(name)["TrainingJobStatus"] for name in names} == {"Completed"}
    assert slowest < 5


def test_unknown_operation_says_what_there_is(tmp_path: Path) -> None:
    with started(tmp_path / "home", runtime="process") as local, pytest.raises(ClientError) as refused:
        local.sagemaker.create_cluster(ClusterName="x")
    assert "CreateTrainingJob" in str(refused.value)


@pytest.mark.engine
def test_container_that_nobody_knows_is_removed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    local = LocalServer(home, control.start(home, Config(port=0, runtime="docker")))
    local.start_training("sleep 60")
    wait_until(lambda: container_names(home), lambda names: len(names) == 1)
    crash(local)
    for file in home.root.glob("state.db*"):
        file.unlink()
    with started(home.root, runtime="docker"):
        wait_until(lambda: container_names(home), lambda names: names == [], seconds=30)
