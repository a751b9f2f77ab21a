"""`microjobs local`, as users type it, and its settings."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local import config
from microjobs_orchestrator.local.config import Config, ConfigError
from microjobs_orchestrator.local.home import HOME, Home, HomeError
from tests.local.clients import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to work in; no server is left in it."""
    yield tmp_path
    microjobs(tmp_path, "down")


def microjobs(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["microjobs", "local", *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


UP = ("up", "--detach", "--port", "0", "--runtime", "process")


def test_server_is_started_found_and_ended(folder: Path) -> None:
    up = microjobs(folder, *UP)
    assert "answers, runtime process (it was asked for)" in up.stdout
    assert microjobs(folder, *UP).stdout == up.stdout  # it runs already
    assert "answers, process" in microjobs(folder, "status").stdout
    assert microjobs(folder, "down").stdout == "stopped\n"
    status = microjobs(folder, "status")
    assert (status.returncode, "no server runs" in status.stdout) == (1, True)
    assert microjobs(folder, "down").stdout == f"no server runs for {folder / '.microjobs'}\n"


def test_server_that_runs_refuses_flags_that_it_cannot_follow(folder: Path) -> None:
    up = microjobs(folder, *UP)
    port = up.stdout.split()[0].rpartition(":")[2]
    assert microjobs(folder, "up", "--detach", "--port", port, "--runtime", "auto").stdout == up.stdout
    for flags in (
        ("--port", "4"),
        ("--runtime", "docker"),
        ("--region", "eu-west-1"),
        ("--limits",),
        ("--image-alias", "a=b"),
        ("--guard-image", "a"),
        ("--service", "sns=http://127.0.0.1:9"),
    ):
        again = microjobs(folder, "up", "--detach", *flags)
        assert (again.returncode, again.stdout) == (1, ""), flags
        assert f"stop it with `microjobs local down`, or remove {flags[0]}" in again.stderr


def test_variables_can_be_evaluated_by_a_shell(folder: Path) -> None:
    microjobs(folder, *UP)
    script = 'eval "$(microjobs local env)" && echo $AWS_ENDPOINT_URL $SAGEMAKER_ROLE ${AWS_PROFILE:-none}'
    environment = {"PATH": os.environ["PATH"], "AWS_PROFILE": "work"}
    said = subprocess.run(["sh", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    url, role, profile = said.stdout.split()
    assert (url.startswith("http://127.0.0.1:"), role.startswith("arn:aws:iam::"), profile) == (True, True, "none")


def test_variables_need_a_server(folder: Path) -> None:
    env = microjobs(folder, "env")
    assert env.returncode == 1
    assert "microjobs local up --detach" in env.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupt_ends_the_server_in_the_foreground(folder: Path, number: signal.Signals) -> None:
    home = Home(folder / ".microjobs")
    command = ["microjobs", "local", "up", "--port", "0", "--runtime", "process"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_all)
    wait_until(home.server.exists, bool, seconds=30)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "runtime process: it was asked for" in said
    assert not home.server.exists()


def _hear_all() -> None:
    """As in a terminal; tests in the background have some of these ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def write(folder: Path, text: str) -> Path:
    path = folder / "microjobs.toml"
    path.write_text(text)
    return path


def test_home_that_cannot_be_made_is_told_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(HOME, str(tmp_path / "file" / "home"))
    with pytest.raises(HomeError, match=f"file/home cannot be created .*; set {HOME} to a folder of your own"):
        Home.from_environment().create()


def test_current_folder_that_was_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME, raising=False)
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(HomeError, match="the current folder was removed: change to another one"):
        Home.from_environment()


def test_file_gives_what_flags_do_not(tmp_path: Path) -> None:
    path = write(tmp_path, '[local]\nport = 1\nlimits = true\n[local.images]\n"a" = "b"\n')
    known = config.merge_flags(config.load(path), port=2, images={"c": "d"})
    assert known == Config(port=2, limits=True, images={"a": "b", "c": "d"})


def test_settings_travel_as_flags() -> None:
    from microjobs_orchestrator.cli import make_parser

    wanted = Config(port=1, runtime="process", region="eu-west-1", limits=True, images={"a": "b"})
    options = make_parser().parse_args(["local", "up", *wanted.arguments()])
    assert (options.port, options.runtime, options.region, options.limits) == (1, "process", "eu-west-1", True)
    assert dict(options.image_alias) == {"a": "b"}


def test_settings_that_are_a_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "microjobs.toml").mkdir()
    with pytest.raises(ConfigError, match=r"microjobs\.toml cannot be read: Is a directory; make it a file"):
        config.load(tmp_path / "microjobs.toml")


def test_home_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MICROJOBS_HOME", "~/jobs")
    assert Home.from_environment().root == tmp_path / "jobs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[local", "is not valid TOML"),
        ("[local]\nprot = 1\n", "has no setting 'prot'; the settings are port"),
        ("[local]\nport = '1'\n", "port must be like"),
        ("[local]\nruntime = 'podman'\n", "runtime 'podman' is unknown: choose one of auto, docker, process"),
    ],
)
def test_wrong_settings_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.load(write(tmp_path, text))
    assert message in str(refused.value)


def test_docker_that_is_not_there_is_told(folder: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nowhere.sock"}
    command = ["microjobs", "local", "up", "--port", "0", "--runtime", "docker"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no Docker engine answers" in done.stderr
    assert "--runtime process" in done.stderr
