"""Servers that run during a `with` block, and clients that are directed to a server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

import microjobs.local
from microjobs.local import LocalServer
from microjobs_orchestrator.library.servers import direct_clients
from microjobs_orchestrator.local import control, home_lock
from microjobs_orchestrator.local.config import ConfigError
from microjobs_orchestrator.local.control import ServerError
from microjobs_orchestrator.local.home import Home
from tests.conftest import make_image_name
from tests.local import clients
from tests.local.clients import run_server
from tests.polling import wait_until

OTHER_SETTINGS = {
    "AWS_PROFILE": "missing",
    "AWS_SESSION_TOKEN": "token",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_SAGEMAKER": "http://127.0.0.1:1",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
}
"""Environment variables with which a client would not reach a local server."""

PROGRAM = f"""
import sys, time
import microjobs.local

with microjobs.local.server(sys.argv[1] or None, runtime="process") as server:
    server.client("sagemaker").create_processing_job(
        ProcessingJobName="sleep",
        AppSpecification={{"ImageUri": "{make_image_name("serve")}", "ContainerEntrypoint": ["sh", "-c", "sleep 60"]}},
        ProcessingResources={{
            "ClusterConfig": {{"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}}
        }},
        RoleArn=server.role_arn,
    )
    print(server.folder, flush=True)
    {{action}}
"""


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clients.LocalServer]:
    with run_server(tmp_path_factory.mktemp("running"), runtime="process") as server:
        yield server


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set OTHER_SETTINGS, and return the environment. After the test, all variables are restored."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_REGION", "SAGEMAKER_ROLE", "MICROJOBS_SAVED_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in OTHER_SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return read_environment()


def read_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def count_models(client: Any) -> int:
    return len(client.list_models()["Models"])


def find_process_id(server: LocalServer) -> int:
    holder = home_lock.find_holder(Home(server.folder))
    assert holder is not None
    return holder


def test_server_answers_its_clients_and_is_removed(environment: dict[str, str]) -> None:
    with microjobs.local.server(runtime="process") as server:
        assert count_models(server.client("sagemaker")) == 0
        server.client("s3").put_object(Bucket=server.bucket, Key="a/b", Body=b"content")
        assert (server.bucket_folder / "a/b").read_bytes() == b"content"
        assert server.runtime == "process"
        process_id = find_process_id(server)
    assert not server.folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)
    assert read_environment() == environment


def test_folder_of_the_user_and_its_objects_are_kept(tmp_path: Path) -> None:
    with microjobs.local.server(tmp_path / "home", runtime="process") as server:
        (server.bucket_folder / "kept").write_text("content")
    assert (server.bucket_folder / "kept").read_text() == "content"
    assert control.find_server(Home(tmp_path / "home")) is None


def test_server_ends_with_a_block_that_raises() -> None:
    def fail() -> LocalServer:
        with microjobs.local.server(runtime="process") as server:
            servers.append(server)
            raise ZeroDivisionError

    servers: list[LocalServer] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert not servers[0].folder.exists()


def test_settings_file_applies_except_its_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "microjobs.toml").write_text('[local]\nport = 1\nregion = "eu-west-1"\nruntime = "docker"\n')
    monkeypatch.chdir(tmp_path)
    with microjobs.local.server(runtime="process") as server:
        assert (server.region, server.runtime) == ("eu-west-1", "process")
        assert not server.url.endswith(":1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runtimes": "process"}, "no setting 'runtimes'; the settings are port, runtime"),
        ({"runtime": "vm"}, "'vm'"),
        ({"port": "4577"}, "port must be a whole number, not '4577'"),
    ],
)
def test_unusable_setting_is_named(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message), microjobs.local.server(**settings):
        pass


def test_folder_with_a_server_is_refused(shared_server: clients.LocalServer) -> None:
    with pytest.raises(ServerError, match="a server already runs"), microjobs.local.server(shared_server.home.root):
        pass
    assert count_models(shared_server.sagemaker) == 0


def test_credentials_are_not_in_the_representation(shared_server: clients.LocalServer) -> None:
    server = LocalServer.from_address(shared_server.home, shared_server.address)
    assert shared_server.address.secret_access_key in server.environment.values()
    assert shared_server.address.secret_access_key not in repr(server)


# --- the end of the program ---


def start_program(folder: str, action: str) -> "tuple[subprocess.Popen[str], Home]":
    """Start a program whose server runs a job. When the job runs, return the program's process and the home."""
    program = [sys.executable, "-c", PROGRAM.replace("{action}", action), folder]
    process = subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=_restore_interrupts
    )
    assert process.stdout is not None
    home = Home(Path(process.stdout.readline().strip()))
    wait_until(lambda: list_processes(str(home.work)), bool)
    return process, home


def _restore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def list_processes(folder: str) -> list[str]:
    """Return the command lines and environments that contain a folder's path: those of its server and of its hosts."""
    return [text for text in map(_read_process, Path("/proc").glob("[0-9]*")) if folder in text]


def _read_process(process: Path) -> str:
    try:
        return b"".join((process / name).read_bytes() for name in ("cmdline", "environ")).decode(errors="replace")
    except OSError:  # the process has ended
        return ""


@pytest.mark.slow
@pytest.mark.parametrize("send", [lambda process: process.send_signal(signal.SIGINT), None], ids=["ctrl-c", "exit"])
def test_ended_program_leaves_no_folder_and_no_process(send: Callable[[Any], None] | None) -> None:
    process, home = start_program("", "time.sleep(60)" if send else "sys.exit(int(input()))")
    with process:
        if send:
            send(process)
        process.communicate("3\n", timeout=30)
        assert process.returncode == (-signal.SIGINT if send else 3)
    assert not home.root.exists()
    assert list_processes(str(home.work)) == []


def test_ctrl_c_during_the_start_ends_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep, interrupts = time.sleep, iter([KeyboardInterrupt()])

    def interrupt_first(seconds: float) -> None:
        for interrupt in interrupts:
            raise interrupt
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", interrupt_first)  # the program sleeps until the server answers
    with pytest.raises(KeyboardInterrupt), microjobs.local.server(tmp_path / "home", runtime="process"):
        pass
    assert list_processes(str(tmp_path)) == []


def test_server_of_a_killed_program_stops(tmp_path: Path) -> None:
    process, home = start_program(str(tmp_path / "home"), "time.sleep(60)")
    with process:
        process.kill()
    wait_until(lambda: home_lock.find_holder(home), lambda holder: holder is None)
    assert list_processes(str(home.work)) == []


# --- connect ---


def test_connect_directs_clients_until_disconnect(
    shared_server: clients.LocalServer, environment: dict[str, str]
) -> None:
    server = microjobs.local.connect(shared_server.home.root)
    shared_server.s3.put_object(Bucket=server.bucket, Key="key", Body=b"content")
    assert boto3.client("s3").get_object(Bucket=server.bucket, Key="key")["Body"].read() == b"content"
    assert os.environ["SAGEMAKER_ROLE"] == server.role_arn
    microjobs.local.connect(shared_server.home.root)
    microjobs.local.disconnect()
    assert read_environment() == environment
    assert boto3.DEFAULT_SESSION is None


def test_connect_replaces_the_default_session(
    shared_server: clients.LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", boto3.Session(region_name="eu-west-3"))
    microjobs.local.connect(shared_server.home.root)
    try:
        assert boto3.client("sagemaker").meta.endpoint_url == shared_server.address.url
        assert boto3.client("sts").get_caller_identity()["Account"] == "000000000000"
    finally:
        microjobs.local.disconnect()


def test_default_session_is_restored_after_a_block(
    shared_server: clients.LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = boto3.Session(region_name="eu-west-3")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    with direct_clients(LocalServer.from_address(shared_server.home, shared_server.address)):
        assert boto3.client("sagemaker").meta.endpoint_url == shared_server.address.url
    assert boto3.DEFAULT_SESSION is session


def test_connect_finds_the_server_of_the_environment(
    shared_server: clients.LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROJOBS_HOME", str(shared_server.home.root))
    try:
        assert microjobs.local.connect().url == shared_server.address.url
    finally:
        microjobs.local.disconnect()


def test_connect_needs_a_server(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="microjobs local up --detach"):
        microjobs.local.connect(tmp_path)
