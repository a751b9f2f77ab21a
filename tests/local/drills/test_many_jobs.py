"""Many jobs at the same time, one after the other, and in the store: only the store grows with their number."""

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
from tests.local.clients import LocalServer, started, wait_until
from tests.local.drills.leaks import machine, temporary_folder

KIND = "training-job"
FEW, MANY = 10, 10_000

IN_A_ROW = int(os.environ.get("MICROJOBS_DRILL_JOBS", "5"))
"""No-op jobs one after the other; 500 take some minutes."""


@dataclass(frozen=True)
class Size:
    """Resources that a server's process uses."""

    threads: int
    handles: int
    memory: int
    """Bytes."""


def size(pid: int) -> Size:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    handles = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Size(int(status["Threads"]), handles, int(status["VmRSS"].split()[0]) << 10)


def no_op(local: LocalServer) -> None:
    assert local.train("exit 0")["TrainingJobStatus"] == "Completed"


def at_once(local: LocalServer, jobs: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(no_op, [local] * jobs))


@pytest.mark.engine
@pytest.mark.timeout(300 + 5 * IN_A_ROW)
def test_server_does_not_grow_with_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary_folder(Home(tmp_path / "home"))))
    engine = docker.from_env()
    with started(tmp_path / "home", runtime="docker") as local:
        at_once(local, 16)  # what is made once: connections, threads, modules
        before, there = size(local.address.pid), machine(engine, local.home)
        at_once(local, 50)
        for _ in range(IN_A_ROW):
            no_op(local)
        wait_until(lambda: machine(engine, local.home), lambda left: not left.containers | left.folders)
        time.sleep(1)  # connections and threads that are ending
        after, now = size(local.address.pid), machine(engine, local.home)
    engine.close()
    print(f"after {50 + IN_A_ROW} jobs: {before} became {after}")
    assert not now.containers | now.networks | now.volumes | now.folders
    assert now.temporary <= there.temporary
    assert after.threads <= before.threads + 2
    assert after.handles <= before.handles + 8
    # A description needs about 4 kB of memory. What a job leaves in memory must be less than that.
    assert after.memory - before.memory < (8 << 20) + 2048 * IN_A_ROW


def fill(home: Home, jobs: int) -> None:
    """Put ended training jobs into the store of a server that does not run."""
    home.create()
    state = State(home.state)
    with state._transaction():
        rows = (_row(number) for number in range(jobs))
        state._database.executemany("INSERT INTO resources VALUES (?, ?, 0, ?, ?, '', '', ?, ?, ?, ?, '{}')", rows)
    state.close()


def _row(number: int) -> tuple[Any, ...]:
    request = json.dumps({"HyperParameters": {"a": "b" * 1000}})
    name, when = f"job-{number:05}", 1_700_000_000.0 + number
    status = ("Completed", "Failed", "Stopped")[number % 3]
    own_arn = format_arn(f"{KIND}/{name}")
    described = {"TrainingJobName": name, "TrainingJobArn": own_arn, "TrainingJobStatus": status}
    return (KIND, name, own_arn, status, when, when + number % 7, request, json.dumps(described))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("few")
    fill(Home(folder), FEW)
    with started(folder, runtime="process") as local:
        yield local


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("many")
    fill(Home(folder), MANY)
    with started(folder, runtime="process") as local:
        yield local


REQUESTS: dict[str, Callable[[Any], Any]] = {
    "describe": lambda sagemaker: sagemaker.describe_training_job(TrainingJobName="job-00005"),
    "list": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5),
    "newest": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5, SortOrder="Descending"),
    "by name": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5, SortBy="Name"),
    "by status": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5, SortBy="Status"),
    "of a status": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=3, StatusEquals="Failed"),
    "of a name": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5, NameContains="00003"),
    "without a match": lambda sagemaker: sagemaker.list_training_jobs(MaxResults=5, NameContains="nothing"),
    "without a match, by name": lambda sagemaker: sagemaker.list_training_jobs(SortBy="Name", NameContains="nothing"),
    "of a status, by name": lambda sagemaker: sagemaker.list_training_jobs(
        MaxResults=3, SortBy="Name", StatusEquals="Failed"
    ),
    "tags": lambda sagemaker: sagemaker.list_tags(ResourceArn=format_arn(f"{KIND}/job-00005")),
}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_requests_take_the_same_time_with_many_jobs(few: LocalServer, many: LocalServer, request_name: str) -> None:
    # A busy machine can only increase the ratio, so one good try of three is enough.
    assert any(slowdown(few, many, request_name) < 2 for _ in range(3))


def slowdown(few: LocalServer, many: LocalServer, request_name: str) -> float:
    """Return the median time of a request with many jobs, divided by that with few jobs. Requests alternate."""
    times: dict[LocalServer, list[float]] = {few: [], many: []}
    for _ in range(40):
        for local in times:
            began = time.perf_counter()
            REQUESTS[request_name](local.sagemaker)
            times[local].append(time.perf_counter() - began)
    slow, quick = (statistics.median(times[local]) for local in (many, few))
    print(f"{request_name}: {slow / quick:.2f} times as long with {MANY} jobs as with {FEW} ({slow * 1e3:.1f} ms)")
    return slow / quick
