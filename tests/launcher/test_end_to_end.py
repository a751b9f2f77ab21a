"""`microjobs` in its own process, with the local server and real containers."""

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

from microjobs_orchestrator.local.home import HOME, Home
from tests.conftest import REPOSITORY
from tests.images.training import STRAIGHT_LINE_TABLE
from tests.local.machine import container_names

pytestmark = pytest.mark.engine


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home. Its server is ended afterwards."""
    home = tmp_path / "home"
    yield home
    microjobs(home, "local", "down")
    assert container_names(Home(home)) == []


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, HOME: str(home), "PYTHONUNBUFFERED": "1"}


def microjobs(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "microjobs_orchestrator.cli", *words]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment(home), capture_output=True, text=True, check=False, timeout=500
    )


@contextmanager
def start_microjobs(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command as the leader of a process group, as shells do."""
    command = [sys.executable, "-m", "microjobs_orchestrator.cli", *words]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def test_housing_runs_with_user_data_and_pytorch(home: Path, boston: Path) -> None:
    words = ["--framework", "pytorch", "--data", str(boston), "--no-tuning", "--epochs", "20", "--instance-count", "2"]
    done = microjobs(home, "run", "housing", "--runtime", "docker", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "✓ Scaling on 2 hosts" in done.stdout
    mse = float(re.findall(r"Test MSE : ([\d.]+)", done.stdout)[0])
    assert 5 < mse < 100
    (report,) = (home / "runs").glob("*/report.html")
    assert f"Test MSE : {mse}" in report.read_text()
    listed = microjobs(home, "ps").stdout
    assert listed.count("Completed") == 4
    assert "endpoint" not in listed


@pytest.mark.parametrize("flags", [(), ("--as-pipeline",)])
def test_straight_line_prints_the_table_of_the_notebook(home: Path, flags: tuple[str, ...]) -> None:
    done = microjobs(home, "run", "straight-line", "--runtime", "docker", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert STRAIGHT_LINE_TABLE in done.stdout
    assert re.search(r"^0\.3067 +0\.9011 ", done.stdout, re.MULTILINE)
    assert ("approved arn:" in done.stdout) == bool(flags)


def test_failed_pipeline_is_resumed_from_the_failed_step(home: Path) -> None:
    words = ("run", "housing", "--no-tuning", "--instance-count", "1", "--learning-rate", "-1", "--runtime", "docker")
    failed = microjobs(home, *words, "--as-pipeline")
    assert failed.returncode == 1
    assert "learning_rate" in failed.stderr
    assert microjobs(home, "run", "housing", "--resume", "--runtime", "docker").returncode == 1
    listed = microjobs(home, "ps").stdout
    kinds = re.findall(r"^(\w+) +\S+ +(?:Failed|Completed)", listed, re.MULTILINE)
    assert sorted(kinds) == ["execution", "processing", "processing", "training", "training"]


def test_ctrl_c_pressed_twice_leaves_nothing_running(home: Path) -> None:
    with start_microjobs(home, "run", "straight-line", "--epochs", "100000000", "--runtime", "docker") as running:
        assert running.stdout is not None
        assert any("InProgress: Training" in line for line in running.stdout)
        assert len(container_names(Home(home))) == 1
        for _ in range(2):
            os.killpg(running.pid, signal.SIGINT)  # to the whole group, as a terminal does
            time.sleep(0.3)
        output, errors = running.communicate(timeout=200)
    assert (running.returncode, errors) == (130, "")
    assert "stopping straight-line-" in output
    assert "microjobs run straight-line --resume" in output
    assert container_names(Home(home)) == []
    assert re.search(r"^training .* Stopped ", microjobs(home, "ps").stdout, re.MULTILINE)


def test_failed_step_reports_reason_and_resumes(home: Path) -> None:
    failed = microjobs(home, "run", "housing", "--no-tuning", "--learning-rate", "-1", "--runtime", "docker")
    assert failed.returncode == 1
    assert "learning_rate" in failed.stderr
    assert "\n  | " in failed.stderr
    resumed = microjobs(home, "run", "housing", "--resume", "--runtime", "docker")
    assert resumed.returncode == 1
    assert "Raw data" in resumed.stdout
    names = re.findall(r"^(\w+) +housing-\d+-\d+-(\S+)", microjobs(home, "ps").stdout, re.MULTILINE)
    assert sorted(names) == [
        ("processing", "raw"),
        ("processing", "scale"),
        ("training", "train"),
        ("training", "train-2"),
    ]
