"""The module that the fork server of `tests/forks.py` imports first, with the libraries of three jobs, of Dask and of
the local server."""

import importlib
import sys
from pathlib import Path

from microjobs.dask_cluster import import_dask

CONTAINERS = Path(__file__).resolve().parent.parent / "containers"
JOBS = ("batch-score", "preprocess", "serve")
sys.path += [str(CONTAINERS / job) for job in JOBS]
MODULES = (
    "tests.forks",  # each fork imports this module
    "pandas",
    "microjobs.run",
    "microjobs.plots",  # a job imports this module only if it draws a plot
    "microjobs.dask_hosts",
    "microjobs.hosting.server",
    *(f"microjobs_{job.replace('-', '_')}.main" for job in JOBS),
    "microjobs_preprocess.encode_tables",
    "microjobs_orchestrator.local.server",
)

for name in MODULES:
    importlib.import_module(name)
import_dask({"DASK_LOGGING__DISTRIBUTED": "error"})
