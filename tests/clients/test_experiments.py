"""Test of a program for experiments, with the classes `Run` and `ExperimentAnalytics` of the SDK v2."""

import json
from pathlib import Path

import pytest

from tests.clients.environments import run_program
from tests.local.clients import LocalServer


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_program_for_sdk_v2_logs_runs(process_server: LocalServer, tmp_path: Path) -> None:
    lines = run_program("sdk", process_server, tmp_path, "experiments_v2.py", str(tmp_path))
    assert json.loads(lines[-1]) == {
        "parameters": {"learning_rate": 0.01, "optimizer": "adam", "epochs": 3},
        "artifacts": [["data"], ["notes"]],
        "runs": ["first", "second"],
        "status": "Completed",
        "metrics": {"loss": [3, 0.01, 0.03]},  # the number of values, the last value and the largest value
        "series": [0.03, 0.02, 0.01],
        "produced": [["Produced", "PrecisionRecall"]],  # the type of an association, and of its artifact
        "table": [0.01, 0.1],  # the learning rates of the runs
    }
