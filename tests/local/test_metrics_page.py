"""Test of the program on the page about metrics."""

import os
import re
import subprocess
import sys
from pathlib import Path

from microjobs_orchestrator.local import control
from tests.conftest import REPOSITORY
from tests.local.clients import LocalServer

PAGE = (REPOSITORY / "docs" / "using" / "metrics.md").read_text(encoding="utf-8")


def test_program_prints_the_curve_of_a_job(process_server: LocalServer, tmp_path: Path) -> None:
    (program, _) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    script = "echo loss=4; echo loss=2; sleep 1.1; echo loss=1"
    metric = {"Name": "loss", "Regex": "loss=([0-9]+)"}
    job = process_server.train(script, algorithm={"MetricDefinitions": [metric]})
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        **control.make_environment(process_server.home, process_server.address),
    }
    command = [sys.executable, "-c", program, job["TrainingJobName"]]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [line.partition(" ")[2] for line in result.stdout.splitlines()]
    assert lines in (["3 (2 values)", "1 (1 values)"], ["4 (1 values)", "2 (1 values)", "1 (1 values)"])
