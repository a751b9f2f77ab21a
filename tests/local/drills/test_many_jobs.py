"""Tests of many jobs: at the same time, one after the other, and in the store. Only the store grows with each job."""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.state import State
from tests.local.clients import LocalServer, run_server
from tests.local.drills.leaks import list_traces, make_temporary_folder
from tests.polling import wait_until

KIND = "training-job"
FEW_JOB_COUNT, MANY_JOB_COUNT = 10, 10_000

SUCCESSIVE_JOB_COUNT = int(os.environ.get("MICROJOBS_DRILL_JOBS", "5"))
"""The number of empty jobs that run one after the other. 500 jobs take some minutes."""


@dataclass(frozen=True)
class Usage:
    """Resources that a server's process uses."""

    threads: int
    open_files: int
    memory_bytes: int


def measure_usage(pid: int) -> Usage:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    open_files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Usage(int(status["Threads"]), open_files, int(status["VmRSS"].split()[0]) << 10)


def run_empty_job(server: LocalServer) -> None:
    assert server.train("exit 0")["TrainingJobStatus"] == "Completed"


def run_in_parallel(server: LocalServer, job_count: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run_empty_job, [server] * job_count))


@pytest.mark.engine
@pytest.mark.timeout(300 + 5 * SUCCESSIVE_JOB_COUNT)
def test_server_does_not_grow_with_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(make_temporary_folder(Home(tmp_path / "home"))))
    engine = docker.from_env()
    with run_server(tmp_path / "home", runtime="docker") as server:
        # the first jobs load modules and create connections and threads, which the server then keeps
        run_in_parallel(server, 16)
        usage_before, traces_before = measure_usage(server.address.pid), list_traces(engine, server.home)
        run_in_parallel(server, 50)
        for _ in range(SUCCESSIVE_JOB_COUNT):
            run_empty_job(server)
        wait_until(lambda: list_traces(engine, server.home), lambda traces: not traces.containers | traces.folders)
        time.sleep(1)  # after this time, connections are closed, and threads have ended
        usage_after, traces_after = measure_usage(server.address.pid), list_traces(engine, server.home)
    engine.close()
    print(f"after {50 + SUCCESSIVE_JOB_COUNT} jobs: {usage_before} became {usage_after}")
    assert not traces_after.containers | traces_after.networks | traces_after.volumes | traces_after.folders
    assert traces_after.temporary_files <= traces_before.temporary_files
    assert usage_after.threads <= usage_before.threads + 2
    assert usage_after.open_files <= usage_before.open_files + 8
    # A description needs about 4 kB of memory. A job must leave less than that in memory.
    assert usage_after.memory_bytes - usage_before.memory_bytes < (8 << 20) + 2048 * SUCCESSIVE_JOB_COUNT


def add_ended_jobs(home: Home, job_count: int) -> None:
    """Put ended training jobs into the store of a server that does not run."""
    home.create()
    state = State(home.state)
    with state.transaction():
        rows = (_make_row(number) for number in range(job_count))
        state._connection.executemany("INSERT INTO resources VALUES (?, ?, 0, ?, ?, '', '', ?, ?, ?, ?, '{}')", rows)
    state.close()


def _make_row(number: int) -> tuple[Any, ...]:
    request = json.dumps({"HyperParameters": {"a": "b" * 1000}})
    name, timestamp = f"job-{number:05}", 1_700_000_000.0 + number
    status = ("Completed", "Failed", "Stopped")[number % 3]
    own_arn = format_arn(f"{KIND}/{name}")
    description = {"TrainingJobName": name, "TrainingJobArn": own_arn, "TrainingJobStatus": status}
    return (KIND, name, own_arn, status, timestamp, timestamp + number % 7, request, json.dumps(description))


@pytest.fixture(scope="module")
def server_with_few_jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("few")
    add_ended_jobs(Home(folder), FEW_JOB_COUNT)
    with run_server(folder, runtime="process") as server:
        yield server


@pytest.fixture(scope="module")
def server_with_many_jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("many")
    add_ended_jobs(Home(folder), MANY_JOB_COUNT)
    with run_server(folder, runtime="process") as server:
        yield server


REQUESTS: dict[str, Callable[[Any], Any]] = {
    "describe": lambda sagemaker: sagemaker.describe_training_job(TrainingJobName="job-00005"),
    "list": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5),
    "newest": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5, SortOrder="Descending"),
    "by name": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5, SortBy="Name"),
    "by status": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5, SortBy="Status"),
    "with a status": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=3, StatusEquals="Failed"),
    "with a name": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5, NameContains="00003"),
    "without a match": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5, NameContains="nothing"),
    "without a match, by name": lambda sagemaker: sagemaker.list_training_jobs(SortBy="Name", NameContains="nothing"),
    "with a status, by name": lambda sagemaker: sagemaker.list_training_jobs(
        MaxResults=3, SortBy="Name", StatusEquals="Failed"
    ),
    "tags": lambda sagemaker: sagemaker.list_tags(ResourceArn=format_arn(f"{KIND}/job-00005")),
}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_requests_take_the_same_time_with_many_jobs(
    server_with_few_jobs: LocalServer, server_with_many_jobs: LocalServer, request_name: str
) -> None:
    # A busy machine can only increase the ratio, so one low ratio of three is enough.
    assert any(measure_slowdown(server_with_few_jobs, server_with_many_jobs, request_name) < 2 for _ in range(3))


def measure_slowdown(server_with_few_jobs: LocalServer, server_with_many_jobs: LocalServer, request_name: str) -> float:
    """Return the median time of a request with many jobs, divided by the time with few jobs.

    The requests alternate between the servers, so that a busy machine slows down both."""
    times: dict[LocalServer, list[float]] = {server_with_few_jobs: [], server_with_many_jobs: []}
    for _ in range(40):
        for server in times:
            start_time = time.perf_counter()
            REQUESTS[request_name](server.sagemaker)
            times[server].append(time.perf_counter() - start_time)
    slow_seconds, fast_seconds = (
        statistics.median(times[server]) for server in (server_with_many_jobs, server_with_few_jobs)
    )
    ratio = slow_seconds / fast_seconds
    print(
        f"{request_name}: {ratio:.2f} times as long with {MANY_JOB_COUNT} jobs as with {FEW_JOB_COUNT} "
        f"({slow_seconds * 1e3:.1f} ms)"
    )
    return ratio
