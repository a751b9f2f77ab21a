"""The SageMaker SDK as its users have it, against the local server."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.local import server
from tests.clients.environments import client_programs
from tests.conftest import REPOSITORY, image_name
from tests.local.clients import Local

pytestmark = pytest.mark.engine


@pytest.mark.timeout(900)
def test_housing_notebook_runs_to_its_last_cell(local: Local, boston: Path, tmp_path: Path) -> None:
    python = client_programs("sdk") / "python"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),  # no settings or credentials of the user's
        "PYTHONPATH": str(REPOSITORY / "shared"),
        **server.environment(local.home, local.address),
    }
    script = Path(__file__).with_name("housing_notebook.py")
    command = [str(item) for item in (python, "-W", "ignore", script, boston, tmp_path, image_name("{}"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "INFO:" not in line]
    assert done.returncode == 0, done.stdout[-2000:] + "\n".join(said)[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["best"] < 30
    assert len(told["predictions"]) == 10
    assert sum(abs(p - t) for p, t in zip(told["predictions"], told["targets"], strict=True)) / 10 < 6
    assert told["report"].startswith("Test MSE : ")
    assert "val_loss:" in done.stdout  # fit showed the job's own log
    assert told["endpoints"] == []
