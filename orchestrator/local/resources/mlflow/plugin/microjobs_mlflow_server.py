"""Runs `mlflow server` in one process: `python -m microjobs_mlflow_server ARGUMENT...`.

MLflow creates its database, and then starts uvicorn with a new interpreter, which imports all modules a second time.
Here, uvicorn runs in the same process: a start takes about half of the time, and one interpreter fewer stays in memory.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from unittest.mock import patch

# This import must be before MLflow's: MLflow checks the headers Host and Origin only if uvicorn is already imported.
import uvicorn.main


def run_uvicorn(command: Sequence[str], *, extra_env: Mapping[str, str], **_: object) -> None:
    """Run `PYTHON -m uvicorn ARGUMENT...` in this process, and exit. MLflow's own function starts a new process."""
    os.environ.update(extra_env)
    uvicorn.main.main(command[3:])


def main() -> None:
    # These imports are not at the top, because uvicorn's workers also import this module, and uvicorn replaces a worker
    # whose imports take more than 5 s.
    from mlflow import server
    from mlflow.cli import cli

    with patch.object(server, "_exec_cmd", run_uvicorn):  # fails if another version of MLflow has no such function
        cli(["server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
