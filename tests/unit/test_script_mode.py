"""Tests of script mode that do not need the sagemaker-training toolkit."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from microjobs import script_mode, source
from microjobs.contract import BASE_DIR_VARIABLE, InstanceGroup, Layout, ResourceConfig
from microjobs.errors import Stopped, UserError
from microjobs.interpreter import take_python_variables
from microjobs.network import TORCH_PORT
from tests.unit.hosts import is_running


def run_script(script: str, folder: Path) -> None:
    script_mode._execute("train.py", ["/bin/sh", "-c", script], folder)


def test_reason_starts_with_the_name_and_the_last_line_of_the_script(tmp_path: Path) -> None:
    with pytest.raises(script_mode.ScriptError, match=r"^train.py failed: no good \(exit code 3\)\nbefore\nno good$"):
        run_script("echo before >&2; echo no good >&2; exit 3", tmp_path)


def test_only_the_end_of_a_long_stderr_is_kept(tmp_path: Path) -> None:
    with pytest.raises(script_mode.ScriptError) as raised:
        run_script("seq 100000 >&2; exit 1", tmp_path)
    assert str(raised.value).splitlines()[1:] == [str(number) for number in range(99981, 100001)]


def test_sigkill_is_reported_as_missing_memory(tmp_path: Path) -> None:
    with pytest.raises(script_mode.ScriptError, match="ended by SIGKILL, most likely out of memory"):
        run_script("kill -KILL $$", tmp_path)


def test_failure_after_a_stop_signal_raises_stopped(tmp_path: Path) -> None:
    with pytest.raises(Stopped) as raised:
        run_script("kill -TERM $PPID; sleep 0.2; exit 1", tmp_path)
    assert raised.value.signal_number == 15


def test_background_process_does_not_delay_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_mode, "DRAIN_SECONDS", 0.1)
    pid_file = tmp_path / "pid"
    run_script(f"sleep 60 & printf %s $! > {pid_file}", tmp_path)
    assert is_running(pid_file)
    os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_variables_that_describe_another_interpreter_are_not_passed_on() -> None:
    user_variables = {"PYTHONPATH": "/a", "PYTHONWARNINGS": "error"}
    interpreter_variables = {
        "PYTHONHOME": "/nonexistent",
        "PYTHONPLATLIBDIR": "x",
        "PYTHONEXECUTABLE": "/nonexistent/python",
    }
    environ = {**user_variables, **interpreter_variables, "HOME": "/b"}
    passed_variables = take_python_variables(environ)
    assert (passed_variables, environ) == (user_variables, {"HOME": "/b"})
    subprocess.run([sys.executable, "-c", "import json"], env=passed_variables, check=True)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_source_below_opt_ml_is_found_below_the_layout_root(scheme: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.code.mkdir()
    assert source.locate(layout, f"{scheme}{layout.to_contract_path(layout.code)}", "setting", tmp_path) == layout.code


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("/nowhere", "setting '/nowhere' does not exist"),
        ("s3://bucket", "is not the address of an object"),
        ("s3://bucket/folder/", "is not the address of an object"),
    ],
)
def test_error_names_the_missing_source(uri: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        source.locate(Layout(tmp_path), uri, "setting", tmp_path)


def test_image_without_the_toolkit_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(BASE_DIR_VARIABLE, str(tmp_path))
    caplog.set_level(logging.INFO)
    with pytest.raises(UserError, match="this image has no script mode"):
        script_mode.train("train.py")


@pytest.fixture
def all_modules_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)


@pytest.mark.usefixtures("all_modules_installed")
@pytest.mark.parametrize("switch", [script_mode.TORCH_SWITCH, script_mode.TENSORFLOW_SWITCH])
def test_distribution_switches_of_the_sdk_are_accepted(switch: str) -> None:
    assert script_mode._choose_switch({switch: True}, ResourceConfig()) == switch
    assert script_mode._choose_switch({switch: False, "sagemaker_job_name": "a"}, ResourceConfig()) is None


@pytest.mark.usefixtures("all_modules_installed")
@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"sagemaker_mpi_enabled": True}, "sagemaker_mpi_enabled is not supported: this image supports"),
        ({script_mode.TORCH_SWITCH: True, script_mode.TENSORFLOW_SWITCH: True}, "exclude each other"),
        (
            {script_mode.TORCH_SWITCH: True, "sagemaker_distribution_instance_groups": ["gpus"]},
            "must name all instance groups",
        ),
    ],
)
def test_unsupported_distribution_raises(parameters: dict[str, object], reason: str) -> None:
    group = InstanceGroup("homogeneousCluster", "ml.m5.large", ("algo-1",))
    with pytest.raises(UserError, match=reason):
        script_mode._choose_switch(parameters, ResourceConfig(groups=(group,)))


def test_switch_of_a_missing_framework_raises() -> None:
    with pytest.raises(UserError, match="needs torch, which this image does not have"):
        script_mode._choose_switch({script_mode.TORCH_SWITCH: True}, ResourceConfig())


ARGUMENTS = ["--name", "a b", "--note", "it's"]
SHELL_ARGUMENTS = """--name 'a b' --note 'it'"'"'s'"""


@pytest.mark.parametrize(
    ("program", "files", "command"),
    [
        ("train.py", ["train.py"], [sys.executable, "--", "train.py", *ARGUMENTS]),
        ("package.py", ["setup.py"], [sys.executable, "-m", "package", *ARGUMENTS]),
        ("package", ["setup.py"], [sys.executable, "-m", "package", *ARGUMENTS]),
        ("train.sh", ["setup.py", "train.sh"], ["/bin/sh", "-c", f"./train.sh {SHELL_ARGUMENTS}"]),
        ("bin/train", ["bin"], ["/bin/sh", "-c", f"./bin/train {SHELL_ARGUMENTS}"]),
    ],
    ids=["script", "package file", "package name", "shell script", "program"],
)
def test_command_equals_the_command_of_the_toolkit(
    program: str, files: list[str], command: list[str], tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert script_mode._make_command(tmp_path, program, ARGUMENTS) == command


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ([sys.executable, "--", "train.py", "--epochs", "3"], ["train.py", "--epochs", "3"]),
        ([sys.executable, "-m", "package"], ["-m", "package"]),
        (["/bin/sh", "-c", "./train.sh "], ["--no-python", "/bin/sh", "-c", "./train.sh "]),
    ],
)
def test_torchrun_runs_the_toolkits_command(command: list[str], arguments: list[str]) -> None:
    program = script_mode._make_program(script_mode.TORCH_SWITCH, ResourceConfig(), command)
    assert program.command[-len(arguments) - 2 :] == ["--master-port", str(TORCH_PORT), *arguments]


def test_tf_config_contains_the_index_of_the_host() -> None:
    resources = ResourceConfig("algo-2", ("algo-1", "algo-2"))
    program = script_mode._make_program(script_mode.TENSORFLOW_SWITCH, resources, ["/bin/sh", "-c", "./train.sh "])
    assert program.command == ["/bin/sh", "-c", "./train.sh "]
    assert json.loads(program.variables["TF_CONFIG"])["task"] == {"type": "worker", "index": 1}


def test_failure_reason_omits_the_output_of_torchrun() -> None:
    stderr = (
        "[rank1]: ValueError: seven\nE1122 05:28:29 7 venv/torch/distributed/elastic/multiprocessing/api.py:1002] "
        "failed (exitcode: -9) local_rank: 0 (pid: 10) of binary: python\nTraceback\nChildFailedError:\n======\n"
    )
    code, reason = script_mode._explain("train.py", 1, stderr)
    assert code == -9
    assert reason == (
        "train.py failed: ValueError: seven (ended by SIGKILL, most likely out of memory)\nValueError: seven"
    )
