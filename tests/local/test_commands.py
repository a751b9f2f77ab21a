"""The commands `microjobs local` and their settings."""

import gc
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local import config, server
from microjobs_orchestrator.local.config import Config, ConfigError
from microjobs_orchestrator.local.home import HOME, Home, HomeError
from tests.local.clients import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A working folder whose server is stopped after the test."""
    yield tmp_path
    microjobs(tmp_path, "down")


def microjobs(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["microjobs", "local", *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


UP = ("up", "--detach", "--port", "0", "--runtime", "process")


def test_server_starts_reports_status_and_stops(folder: Path) -> None:
    up = microjobs(folder, *UP)
    assert "answers, runtime process (as configured)" in up.stdout
    again = microjobs(folder, *UP)  # it runs already
    assert again.stdout.splitlines()[:2] == up.stdout.splitlines()[:2]
    assert "answers, process" in microjobs(folder, "status").stdout
    assert microjobs(folder, "down").stdout == "stopped\n"
    status = microjobs(folder, "status")
    assert (status.returncode, "no server runs" in status.stdout) == (1, True)
    assert microjobs(folder, "down").stdout == f"no server runs for {folder / '.microjobs'}\n"


def test_each_address_of_the_console_is_new_and_not_in_the_log(folder: Path) -> None:
    up = microjobs(folder, *UP)
    printed = [microjobs(folder, "console").stdout for _ in range(2)]
    assert printed[0] != printed[1]
    assert all(text.startswith(f"{up.stdout.split()[0]}/_microjobs/console/#token=") for text in printed)
    assert "/_microjobs/console/#token=" in up.stdout
    assert "token" not in (folder / ".microjobs" / "server.log").read_text()


def test_console_needs_a_server(folder: Path) -> None:
    console = microjobs(folder, "console")
    assert (console.returncode, "microjobs local up --detach" in console.stderr) == (1, True)


def test_running_server_refuses_other_settings(folder: Path) -> None:
    up = microjobs(folder, *UP)
    port = up.stdout.split()[0].rpartition(":")[2]
    again = microjobs(folder, "up", "--detach", "--port", port, "--runtime", "auto")
    assert again.stdout.splitlines()[:2] == up.stdout.splitlines()[:2]
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
        ("--service", "sns=http://127.0.0.1:9"),
    ):
        result = microjobs(folder, "up", "--detach", *flags)
        assert (result.returncode, result.stdout) == (1, ""), flags
        assert f"stop it with `microjobs local down`, or remove {flags[0]}" in result.stderr


def test_shell_can_evaluate_the_environment(folder: Path) -> None:
    microjobs(folder, *UP)
    script = 'eval "$(microjobs local env)" && echo $AWS_ENDPOINT_URL $SAGEMAKER_ROLE ${AWS_PROFILE:-none}'
    environment = {"PATH": os.environ["PATH"], "AWS_PROFILE": "work"}
    output = subprocess.run(
        ["sh", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    url, role, profile = output.stdout.split()
    assert (url.startswith("http://127.0.0.1:"), role.startswith("arn:aws:iam::"), profile) == (True, True, "none")


def test_environment_needs_a_server(folder: Path) -> None:
    env = microjobs(folder, "env")
    assert env.returncode == 1
    assert "microjobs local up --detach" in env.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_stops_the_server_in_the_foreground(folder: Path, number: signal.Signals) -> None:
    home = Home(folder / ".microjobs")
    command = ["microjobs", "local", "up", "--port", "0", "--runtime", "process"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=_restore_signals)
    wait_until(home.server_file.exists, bool, seconds=30)
    process.send_signal(number)
    _, output = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "runtime process: as configured" in output
    assert not home.server_file.exists()


def _restore_signals() -> None:
    """Restore the default handlers, as in a terminal: a background process ignores some signals."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def write(folder: Path, text: str) -> Path:
    path = folder / "microjobs.toml"
    path.write_text(text)
    return path


def test_garbage_is_collected_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled = list[bool]()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(server, "serve", lambda *_, **_options: enabled.append(gc.isenabled()))
    assert main(["local", "up"]) == 0
    assert enabled == [True]


def test_home_that_cannot_be_created_error_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(HOME, str(tmp_path / "file" / "home"))
    with pytest.raises(HomeError, match=f"file/home cannot be created .*; set {HOME} to a folder of your own"):
        Home.from_environment().create()


def test_removed_current_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME, raising=False)
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(HomeError, match="the current folder was removed: change to another one"):
        Home.from_environment()


def test_flags_override_the_settings_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[local]\nport = 1\nlimits = true\n[local.images]\n"a" = "b"\n')
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
    container = make_parser().parse_args(["local", "up", *Config(all_addresses=True, host_names=["a", "b"]).to_flags()])
    assert (container.all_addresses, container.host_name) == (True, ["a", "b"])


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
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, text))
    assert message in str(caught.value)


def test_missing_docker_engine_is_reported(folder: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nowhere.sock"}
    command = ["microjobs", "local", "up", "--port", "0", "--runtime", "docker"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "no Docker engine answers" in result.stderr
    assert "--runtime process" in result.stderr
