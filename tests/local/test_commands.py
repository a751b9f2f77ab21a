"""Tests of the commands `microjobs local` and of their settings."""

import gc
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local import config, server
from microjobs_orchestrator.local.config import Config, ConfigError
from microjobs_orchestrator.local.home import HOME_VARIABLE, Home, HomeError
from tests.polling import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A working folder whose server is stopped after the test."""
    yield tmp_path
    run_microjobs(tmp_path, "down")


def run_microjobs(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["microjobs", "local", *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


UP_COMMAND = ("up", "--detach", "--port", "0", "--runtime", "process")


@dataclass(frozen=True)
class StartedServer:
    """A working folder with a running server, and the output of the command that has started it."""

    folder: Path
    output: str


@pytest.fixture(scope="module")
def started_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedServer]:
    folder = tmp_path_factory.mktemp("started")
    yield StartedServer(folder, run_microjobs(folder, *UP_COMMAND).stdout)
    run_microjobs(folder, "down")


@pytest.mark.slow
def test_server_starts_reports_status_and_stops(folder: Path) -> None:
    first_result = run_microjobs(folder, *UP_COMMAND)
    assert "answers, runtime process (as configured)" in first_result.stdout
    second_result = run_microjobs(folder, *UP_COMMAND)  # the server is already running
    assert second_result.stdout.splitlines()[:2] == first_result.stdout.splitlines()[:2]
    assert "answers, process" in run_microjobs(folder, "status").stdout
    assert run_microjobs(folder, "down").stdout == "stopped\n"
    status = run_microjobs(folder, "status")
    assert (status.returncode, "no server runs" in status.stdout) == (1, True)
    assert run_microjobs(folder, "down").stdout == f"no server runs for {folder / '.microjobs'}\n"


def test_each_address_of_the_console_is_new_and_not_in_the_log(started_server: StartedServer) -> None:
    output = [run_microjobs(started_server.folder, "console").stdout for _ in range(2)]
    assert output[0] != output[1]
    assert all(text.startswith(f"{started_server.output.split()[0]}/_microjobs/console/#token=") for text in output)
    assert "/_microjobs/console/#token=" in started_server.output
    assert "token" not in (started_server.folder / ".microjobs" / "server.log").read_text()


def test_console_needs_a_server(folder: Path) -> None:
    console = run_microjobs(folder, "console")
    assert (console.returncode, "microjobs local up --detach" in console.stderr) == (1, True)


def test_running_server_refuses_other_settings(started_server: StartedServer) -> None:
    port = started_server.output.split()[0].rpartition(":")[2]
    second_result = run_microjobs(started_server.folder, "up", "--detach", "--port", port, "--runtime", "auto")
    assert second_result.stdout.splitlines()[:2] == started_server.output.splitlines()[:2]
    for flags in (
        ("--port", "4"),
        ("--runtime", "docker"),
        ("--region", "eu-west-1"),
        ("--limits",),
        ("--framework-images",),
        ("--image-alias", "a=b"),
        ("--guard-image", "a"),
        ("--serverless-idle-seconds", "5"),
        ("--autoscaling-speed", "5"),
        ("--max-instances", "5"),
        ("--deployment-speed", "5"),
        ("--service", "sns=http://127.0.0.1:9"),
    ):
        result = run_microjobs(started_server.folder, "up", "--detach", *flags)
        assert (result.returncode, result.stdout) == (1, ""), flags
        assert f"stop it with `microjobs local down`, or remove {flags[0]}" in result.stderr


def test_shell_can_evaluate_the_environment(started_server: StartedServer) -> None:
    script = 'eval "$(microjobs local env)" && echo $AWS_ENDPOINT_URL $SAGEMAKER_ROLE ${AWS_PROFILE:-none}'
    environment = {"PATH": os.environ["PATH"], "AWS_PROFILE": "work"}
    output = subprocess.run(
        ["sh", "-c", script], cwd=started_server.folder, env=environment, capture_output=True, text=True, check=True
    )
    url, role, profile = output.stdout.split()
    assert (url.startswith("http://127.0.0.1:"), role.startswith("arn:aws:iam::"), profile) == (True, True, "none")


def test_environment_needs_a_server(folder: Path) -> None:
    env = run_microjobs(folder, "env")
    assert env.returncode == 1
    assert "microjobs local up --detach" in env.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_stops_the_server_in_the_foreground(folder: Path, number: signal.Signals) -> None:
    home = Home(folder / ".microjobs")
    command = ["microjobs", "local", "up", "--port", "0", "--runtime", "process"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=_restore_signals)
    wait_until(home.server_file.exists, bool)
    process.send_signal(number)
    _, output = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "runtime process: as configured" in output
    assert not home.server_file.exists()


def _restore_signals() -> None:
    """Restore the default handlers, as in a terminal: a background process ignores some signals."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def write_settings(folder: Path, text: str) -> Path:
    path = folder / "microjobs.toml"
    path.write_text(text)
    return path


def test_garbage_is_collected_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection_flags = list[bool]()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(server, "serve", lambda *_, **_options: collection_flags.append(gc.isenabled()))
    assert main(["local", "up"]) == 0
    assert collection_flags == [True]


def test_home_that_cannot_be_created_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "file" / "home"))
    with pytest.raises(HomeError, match=f"file/home cannot be created .*; set {HOME_VARIABLE} to a folder of your own"):
        Home.from_environment().create()


def test_removed_current_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(HomeError, match="the current folder was removed: change to another one"):
        Home.from_environment()


def test_flags_override_the_settings_file(tmp_path: Path) -> None:
    path = write_settings(tmp_path, '[local]\nport = 1\nlimits = true\n[local.images]\n"a" = "b"\n')
    settings = config.merge_flags(config.load(path), port=2, images={"c": "d"})
    assert settings == Config(port=2, limits=True, images={"a": "b", "c": "d"})


def test_settings_are_converted_to_flags() -> None:
    from microjobs_orchestrator.cli import make_parser

    settings = Config(port=1, runtime="process", region="eu-west-1", limits=True, images={"a": "b"})
    options = make_parser().parse_args(["local", "up", *settings.to_flags()])
    assert (options.port, options.runtime, options.region, options.limits) == (1, "process", "eu-west-1", True)
    assert dict(options.image_alias) == {"a": "b"}
    assert not options.framework_images
    assert make_parser().parse_args(["local", "up", *Config(framework_images=True).to_flags()]).framework_images
    container_options = make_parser().parse_args(
        ["local", "up", *Config(all_addresses=True, host_names=["a", "b"]).to_flags()]
    )
    assert (container_options.all_addresses, container_options.host_name) == (True, ["a", "b"])


def test_folder_as_settings_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "microjobs.toml").mkdir()
    with pytest.raises(ConfigError, match=r"microjobs\.toml cannot be read: Is a directory; make it a file"):
        config.load(tmp_path / "microjobs.toml")


def test_tilde_in_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MICROJOBS_HOME", "~/jobs")
    assert Home.from_environment().root == tmp_path / "jobs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[local", "is not valid TOML"),
        ("[local]\nprot = 1\n", "has no setting 'prot'; the settings are port"),
        ("[local]\nport = '1'\n", "port must be a whole number, not '1'"),
        ("[local]\nhost_names = 'a'\n", "host_names must be a list, not 'a'"),
        ("[local]\nruntime = 'podman'\n", "runtime 'podman' is unknown: choose one of auto, docker, process"),
    ],
)
def test_invalid_settings_are_reported(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.load(write_settings(tmp_path, text))
    assert message in str(error.value)


def test_missing_docker_engine_is_reported(folder: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nowhere.sock"}
    command = ["microjobs", "local", "up", "--port", "0", "--runtime", "docker"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "no Docker engine answers" in result.stderr
    assert "--runtime process" in result.stderr
