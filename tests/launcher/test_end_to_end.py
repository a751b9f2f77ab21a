"""Tests of `microjobs` in its own process, with the local server and real containers."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from microjobs_orchestrator.local.home import HOME_VARIABLE, Home
from tests.conftest import REPOSITORY
from tests.images.training import STRAIGHT_LINE_TABLE
from tests.local.machine import list_container_names

pytestmark = pytest.mark.engine


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home. After the test, the fixture stops its server."""
    home = tmp_path / "home"
    yield home
    run_microjobs(home, "local", "down")
    assert list_container_names(Home(home)) == []


def make_environment(home: Path) -> dict[str, str]:
    return {**os.environ, HOME_VARIABLE: str(home), "PYTHONUNBUFFERED": "1"}


def run_microjobs(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "microjobs_orchestrator.cli", *words]
    return subprocess.run(
        command, cwd=REPOSITORY, env=make_environment(home), capture_output=True, text=True, check=False, timeout=500
    )


@contextmanager
def start_microjobs(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command as the leader of a process group, as shells do."""
    command = [sys.executable, "-m", "microjobs_orchestrator.cli", *words]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=make_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_housing_runs_with_user_data_and_pytorch(home: Path, boston: Path) -> None:
    words = ["--framework", "pytorch", "--data", str(boston), "--no-tuning", "--epochs", "20", "--instance-count", "2"]
    result = run_microjobs(home, "run", "housing", "--runtime", "docker", *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert "✓ Scaling on 2 hosts" in result.stdout
    mse = float(re.findall(r"Test MSE : ([\d.]+)", result.stdout)[0])
    assert 5 < mse < 100
    (report,) = (home / "runs").glob("*/report.html")
    assert f"Test MSE : {mse}" in report.read_text()
    output = run_microjobs(home, "ps").stdout
    assert output.count("Completed") == 4
    assert "endpoint" not in output


@pytest.mark.parametrize("flags", [(), ("--as-pipeline",)])
def test_straight_line_prints_the_table_of_the_notebook(home: Path, flags: tuple[str, ...]) -> None:
    result = run_microjobs(home, "run", "straight-line", "--runtime", "docker", *flags)
    assert (result.returncode, result.stderr) == (0, "")
    assert STRAIGHT_LINE_TABLE in result.stdout
    assert re.search(r"^0\.3067 +0\.9011 ", result.stdout, re.MULTILINE)
    assert ("approved arn:" in result.stdout) == bool(flags)


def test_failed_pipeline_is_resumed_from_the_failed_step(home: Path) -> None:
    words = ("run", "housing", "--no-tuning", "--instance-count", "1", "--learning-rate", "-1", "--runtime", "docker")
    failed_run = run_microjobs(home, *words, "--as-pipeline")
    assert failed_run.returncode == 1
    assert "learning_rate" in failed_run.stderr
    assert run_microjobs(home, "run", "housing", "--resume", "--runtime", "docker").returncode == 1
    output = run_microjobs(home, "ps").stdout
    kinds = re.findall(r"^(\w+) +\S+ +(?:Failed|Completed)", output, re.MULTILINE)
    assert sorted(kinds) == ["execution", "processing", "processing", "training", "training"]


def test_ctrl_c_pressed_twice_leaves_nothing_running(home: Path) -> None:
    with start_microjobs(home, "run", "straight-line", "--epochs", "100000000", "--runtime", "docker") as process:
        assert process.stdout is not None
        assert any("InProgress: Training" in line for line in process.stdout)
        assert len(list_container_names(Home(home))) == 1
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)  # a terminal also sends the signal to the whole group
            time.sleep(0.3)
        output, errors = process.communicate(timeout=200)
    assert (process.returncode, errors) == (130, "")
    assert "stopping straight-line-" in output
    assert "microjobs run straight-line --resume" in output
    assert list_container_names(Home(home)) == []
    assert re.search(r"^training .* Stopped ", run_microjobs(home, "ps").stdout, re.MULTILINE)


def test_failed_step_reports_reason_and_resumes(home: Path) -> None:
    failed_run = run_microjobs(home, "run", "housing", "--no-tuning", "--learning-rate", "-1", "--runtime", "docker")
    assert failed_run.returncode == 1
    assert "learning_rate" in failed_run.stderr
    assert "\n  | " in failed_run.stderr
    resumed_run = run_microjobs(home, "run", "housing", "--resume", "--runtime", "docker")
    assert resumed_run.returncode == 1
    assert "Raw data" in resumed_run.stdout
    names = re.findall(r"^(\w+) +housing-\d+-\d+-(\S+)", run_microjobs(home, "ps").stdout, re.MULTILINE)
    assert sorted(names) == [
        ("processing", "raw"),
        ("processing", "scale"),
        ("training", "train"),
        ("training", "train-2"),
    ]
