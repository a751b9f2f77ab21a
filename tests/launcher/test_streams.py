"""Test that commands print no traceback if a standard stream is closed, is full, or cannot encode the output."""

import os
import subprocess
from pathlib import Path

import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.runs.kinds import TRAINING
from tests.local.log_lines import append_line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a home that has one job. The job's log contains characters that ASCII cannot encode."""
    home = Home(tmp_path / ".microjobs")
    home.create()
    state = State(home.state)
    state.add("training-job", "job", "arn:job", "Completed", {}, {"TrainingJobStatus": "Completed"})
    state.close()
    append_line(
        LogStore(home.logs).create(TRAINING.log_group("job"), "job/algo-1-1763778749000"), 1.0, "50 % ━━ ✓".encode()
    )
    return tmp_path


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("microjobs --help | true", 1),
        ("microjobs run housing --help | true", 1),
        ("microjobs --version | true", 1),
        ("microjobs ps | true", 1),
        ("microjobs --help > /dev/full", 1),
        ("microjobs --version > /dev/full", 1),
        ("microjobs ps > /dev/full", 1),
        ("microjobs ps >&-", 0),
        ("microjobs ps 2>&-", 0),
        ("microjobs clean home <&-", 2),
        ("PYTHONIOENCODING=ascii microjobs doctor", 1),
        ("PYTHONIOENCODING=latin-1 microjobs logs job", 0),
    ],
)
def test_broken_stream_causes_no_traceback(line: str, code: int, folder: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    command = ["bash", "-o", "pipefail", "-c", line]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    assert result.returncode == code, result.stderr
