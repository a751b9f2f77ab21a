"""The order of the tests: tests that need no engine come first. In each of the two groups, slow files come first.

A worker of pytest-xdist runs whole files, so a long file that starts last would keep one worker busy after the others
have ended. `make test` passes `--no-loadscope-reorder`, which keeps this order. Some files share processes that start
slowly, so one worker runs all of these files.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

SLOW_FILES = (
    "tests/aws/test_page.py",
    "tests/clients/",
    "tests/e2e/",
    "tests/images/",
    "tests/launcher/test_shell.py",
    "tests/library/",
    "tests/local/console/",
    "tests/local/jobs/test_endpoints_containers.py",
    "tests/local/runtimes/test_process_jobs.py",
    "tests/local/s3/test_aws_cli.py",
    "tests/local/mlflow/",
    "tests/local/security/test_fuzz.py",
    "tests/local/security/test_networks.py",
    "tests/local/test_both_runtimes.py",
    "tests/local/test_dask_scripts.py",
    "tests/local/test_hanging.py",
    "tests/local/test_hosting_trained.py",
    "tests/local/test_many_hosts.py",
    "tests/local/test_server.py",
    "tests/local/test_spot.py",
    "tests/local/test_training.py",
    "tests/unit/serve/",
    "tests/unit/test_batch_score.py",
    "tests/unit/test_cluster.py",
    "tests/unit/test_dask_script.py",
    "tests/unit/test_distributed.py",
    "tests/unit/test_preprocess.py",
)
"""Files, and folders of files, that take about 30 seconds or more: the beginnings of the IDs of their tests."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Tests that need no engine come first, so that a mistake shows in seconds, not after the tests of the images.
    items.sort(key=lambda item: (item.get_closest_marker("engine") is not None, not item.nodeid.startswith(SLOW_FILES)))


PROGRAM_SERVER_FILES = frozenset(
    f"tests/clients/test_{name}.py"
    for name in (
        "console_code",
        "experiments",
        "inference_pipelines",
        "metrics",
        "mlflow",
        "pipelines",
        "registry",
    )
)
"""Files whose tests share the processes of `tests/clients/program_server.py`."""

CONSOLE_FOLDER = "tests/local/console"
"""The folder of files whose tests share a server and a browser."""


class Scheduler(LoadFileScheduling):  # type: ignore[misc]  # xdist has no type hints
    """Distributes files to workers; all files of `PROGRAM_SERVER_FILES` count as one file, and so do all files below
    `CONSOLE_FOLDER`."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        if file.startswith(f"{CONSOLE_FOLDER}/"):
            return CONSOLE_FOLDER
        return "tests/clients" if file in PROGRAM_SERVER_FILES else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return Scheduler(config, log) if config.getoption("dist") == "loadfile" else None
