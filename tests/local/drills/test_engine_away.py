"""The engine goes away and comes back while jobs run: behind a proxy, since the engine is everybody's."""

import io
import random
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from requests.exceptions import RequestException

from microjobs.contract import Layout
from microjobs_orchestrator.local.runtimes.docker.engine import EngineUnreachableError, retry_while_unreachable
from microjobs_orchestrator.local.runtimes.docker.host import DockerHost
from microjobs_orchestrator.local.runtimes.docker.labels import HOST_LABEL
from tests.local.clients import LocalServer, started, wait_until
from tests.local.drills.leaks import machine
from tests.local.drills.proxy import Proxy, proxy

ML = Layout()

TALK = f"for n in $(seq {{count}}); do echo out $n; echo err $n >&2; sleep 0.1; done; echo weights > {ML.model}/weights"


@pytest.fixture(scope="module")
def between() -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory() as folder, proxy(Path(folder) / "engine.sock") as passing:
        yield passing


@pytest.fixture(scope="module")
def behind(between: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server that reaches its engine through the proxy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{between.path}")
        running = started(tmp_path_factory.mktemp("home"), runtime="docker")
        local = running.__enter__()
    yield local
    running.__exit__(None, None, None)


def spoken(count: int) -> dict[str, list[str]]:
    return {
        "out": [f"out {number}" for number in range(1, count + 1)],
        "err": [f"err {number}" for number in range(1, count + 1)],
    }


def heard(lines: list[str]) -> dict[str, list[str]]:
    return {kind: [line for line in lines if line.startswith(kind)] for kind in ("out", "err")}


def left(local: LocalServer) -> frozenset[str]:
    engine = docker.from_env()
    try:
        there = machine(engine, local.home)
    finally:
        engine.close()
    return there.containers | there.networks | there.volumes | there.folders


@pytest.mark.engine
def test_job_continues_while_the_engine_is_away(behind: LocalServer, between: Proxy) -> None:
    name = behind.start_training(TALK.format(count=40), instances=2)
    time.sleep(1.5)
    between.go_away()
    time.sleep(1.5)
    between.come_back()
    assert behind.ended(name)["TrainingJobStatus"] == "Completed"
    output = behind.output("TrainingJobs", name)
    assert [heard(output[host]) for host in ("algo-1", "algo-2")] == [spoken(40)] * 2
    wait_until(lambda: left(behind), lambda names: not names, seconds=30)


@pytest.mark.engine
def test_job_that_ends_while_the_engine_is_away_is_collected(behind: LocalServer, between: Proxy) -> None:
    name = behind.start_training(TALK.format(count=10))
    time.sleep(0.8)
    between.go_away()
    time.sleep(2)
    between.come_back()
    job = behind.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job
    assert heard(behind.output("TrainingJobs", name)["algo-1"]) == spoken(10)
    assert (behind.bucket / f"models/{name}/output/model.tar.gz").stat().st_size > 0


@pytest.mark.engine
def test_jobs_get_through_while_the_engine_comes_and_goes(behind: LocalServer, between: Proxy) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311  not for secrets
    print("seed:", seed)
    generator = random.Random(seed)  # noqa: S311
    names = [behind.start_training(TALK.format(count=count), instances=hosts) for count, hosts in ((3, 1), (10, 2))]
    for _ in range(8):
        time.sleep(generator.uniform(0.1, 0.8))
        between.go_away()
        time.sleep(generator.uniform(0, 0.5))
        between.come_back()
    jobs = [behind.ended(name) for name in names]
    assert [job["TrainingJobStatus"] for job in jobs] == ["Completed"] * 2, jobs
    for name, count in zip(names, (3, 10), strict=True):
        assert {str(heard(lines)) for lines in behind.output("TrainingJobs", name).values()} == {str(spoken(count))}
    wait_until(lambda: left(behind), lambda names: not names, seconds=30)


def test_timeout_starts_when_the_engine_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may have run for hours before."""
    monkeypatch.setattr("microjobs_orchestrator.local.runtimes.docker.engine.UNREACHABLE_TIMEOUT", 0.5)
    tries = iter((1.0, 0.0))

    def ask() -> str:
        if (seconds := next(tries)) > 0:
            time.sleep(seconds)
            raise RequestException("connection reset")
        return "ended"

    assert retry_while_unreachable(ask) == "ended"


class Breaking:
    """A container whose archive breaks off the first time."""

    labels = {HOST_LABEL: "algo-1"}  # noqa: RUF012  the shape of docker's own

    def __init__(self) -> None:
        self.asked = 0

    def archive(self, path: str) -> Iterator[bytes]:  # noqa: ARG002
        self.asked += 1
        with io.BytesIO() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                for name in ("model", f"model/{self.asked}"):
                    info = tarfile.TarInfo(name)
                    info.type = tarfile.DIRTYPE
                    archive.addfile(info)
            content = file.getvalue()
        yield content[:1024]
        if self.asked == 1:
            raise RequestException("connection reset")
        yield content[1024:]


def test_copy_that_breaks_off_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = Breaking()
    host = DockerHost(container, None)  # type: ignore[arg-type]
    monkeypatch.setattr(host, "_archive", container.archive)
    assert list(host.copy("model", tmp_path / "model") or ()) == ["2"]


def test_engine_that_stays_away_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microjobs_orchestrator.local.runtimes.docker.engine.UNREACHABLE_TIMEOUT", 0.3)

    def ask() -> str:
        raise RequestException("refused")

    with pytest.raises(EngineUnreachableError, match="the engine does not answer: refused"):
        retry_while_unreachable(ask)
