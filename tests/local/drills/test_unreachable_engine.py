"""Tests of jobs while the engine is unreachable. They disconnect a proxy in front of the engine, because other tests
use the engine at the same time."""

import io
import random
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import docker
import pytest
from requests.exceptions import RequestException

from microjobs.contract import Layout
from microjobs_orchestrator.local.runtimes.docker.engine import EngineUnreachableError, retry_while_unreachable
from microjobs_orchestrator.local.runtimes.docker.host import DockerHost
from microjobs_orchestrator.local.runtimes.docker.labels import HOST_LABEL
from tests.local.clients import LocalServer, run_server
from tests.local.drills.leaks import list_traces
from tests.local.drills.proxy import Proxy, run_proxy
from tests.polling import wait_until

LAYOUT = Layout()

PRINTING_SCRIPT = (
    "for n in $(seq {count}); do echo out $n; echo err $n >&2; sleep 0.1; done; "
    f"echo weights > {LAYOUT.model}/weights"
)


@pytest.fixture(scope="module")
def engine_proxy() -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory() as folder, run_proxy(f"{folder}/engine.sock") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def server(engine_proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server that connects to its engine through the proxy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{engine_proxy.address}")
        server_context = run_server(tmp_path_factory.mktemp("home"), runtime="docker")
        server = server_context.__enter__()  # a with statement would keep the patch during the tests
    yield server
    server_context.__exit__(None, None, None)


def list_expected_lines(count: int) -> dict[str, list[str]]:
    return {
        "out": [f"out {number}" for number in range(1, count + 1)],
        "err": [f"err {number}" for number in range(1, count + 1)],
    }


def group_lines(lines: list[str]) -> dict[str, list[str]]:
    return {prefix: [line for line in lines if line.startswith(prefix)] for prefix in ("out", "err")}


def list_remaining_traces(server: LocalServer) -> frozenset[str]:
    engine = docker.from_env()
    try:
        traces = list_traces(engine, server.home)
    finally:
        engine.close()
    return traces.containers | traces.networks | traces.volumes | traces.folders


@pytest.mark.engine
def test_job_continues_while_the_engine_is_unreachable(server: LocalServer, engine_proxy: Proxy) -> None:
    name = server.start_training(PRINTING_SCRIPT.format(count=40), instances=2)
    time.sleep(1.5)
    engine_proxy.disconnect()
    time.sleep(1.5)
    engine_proxy.listen()
    assert server.wait_for_end(name)["TrainingJobStatus"] == "Completed"
    output = server.read_logs("TrainingJobs", name)
    assert [group_lines(output[host]) for host in ("algo-1", "algo-2")] == [list_expected_lines(40)] * 2
    wait_until(lambda: list_remaining_traces(server), lambda names: not names)


@pytest.mark.engine
def test_outputs_of_a_job_that_ends_while_the_engine_is_unreachable_are_stored(
    server: LocalServer, engine_proxy: Proxy
) -> None:
    name = server.start_training(PRINTING_SCRIPT.format(count=10))
    time.sleep(0.8)
    engine_proxy.disconnect()
    time.sleep(2)
    engine_proxy.listen()
    job = server.wait_for_end(name)
    assert job["TrainingJobStatus"] == "Completed", job
    assert group_lines(server.read_logs("TrainingJobs", name)["algo-1"]) == list_expected_lines(10)
    assert (server.bucket / f"models/{name}/output/model.tar.gz").stat().st_size > 0


@pytest.mark.engine
def test_jobs_complete_while_the_engine_is_often_unreachable(server: LocalServer, engine_proxy: Proxy) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311  not for secrets
    print("seed:", seed)
    generator = random.Random(seed)  # noqa: S311
    names = [
        server.start_training(PRINTING_SCRIPT.format(count=count), instances=hosts)
        for count, hosts in ((3, 1), (10, 2))
    ]
    for _ in range(8):
        time.sleep(generator.uniform(0.1, 0.8))
        engine_proxy.disconnect()
        time.sleep(generator.uniform(0, 0.5))
        engine_proxy.listen()
    jobs = [server.wait_for_end(name) for name in names]
    assert [job["TrainingJobStatus"] for job in jobs] == ["Completed"] * 2, jobs
    for name, count in zip(names, (3, 10), strict=True):
        assert {str(group_lines(lines)) for lines in server.read_logs("TrainingJobs", name).values()} == {
            str(list_expected_lines(count))
        }
    wait_until(lambda: list_remaining_traces(server), lambda names: not names)


def test_timeout_starts_when_the_engine_becomes_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that waits for a job may take hours before the engine becomes unreachable. This time does not count."""
    monkeypatch.setattr("microjobs_orchestrator.local.runtimes.docker.engine.UNREACHABLE_TIMEOUT_SECONDS", 0.5)
    delays = iter((1.0, 0.0))

    def request() -> str:
        if (seconds := next(delays)) > 0:
            time.sleep(seconds)
            raise RequestException("connection reset")
        return "ended"

    assert retry_while_unreachable(request) == "ended"


class InterruptedContainer:
    """A container, and its response to a request for an archive. The first response breaks off.

    Each archive contains a folder whose name is the number of the request.
    """

    labels = {HOST_LABEL: "algo-1"}  # noqa: RUF012  the labels of docker's containers are a dict

    def __init__(self) -> None:
        self.request_count = 0

    def iter_content(self, size: int) -> Iterator[bytes]:  # noqa: ARG002
        """Yield the archive, as a response of the engine does."""
        self.request_count += 1
        with io.BytesIO() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                for name in ("model", f"model/{self.request_count}"):
                    info = tarfile.TarInfo(name)
                    info.type = tarfile.DIRTYPE
                    archive.addfile(info)
            content = file.getvalue()
        yield content[:1024]
        if self.request_count == 1:
            raise RequestException("connection reset")
        yield content[1024:]


def test_interrupted_copy_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = InterruptedContainer()
    host = DockerHost(container, None)  # type: ignore[arg-type]
    stream_function = "microjobs_orchestrator.local.runtimes.docker.host.open_stream"
    monkeypatch.setattr(stream_function, lambda *_: nullcontext(container))
    assert list(host.copy("model", tmp_path / "model") or ()) == ["2"]


def test_engine_that_stays_unreachable_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microjobs_orchestrator.local.runtimes.docker.engine.UNREACHABLE_TIMEOUT_SECONDS", 0.3)

    def request() -> str:
        raise RequestException("refused")

    with pytest.raises(EngineUnreachableError, match="the engine does not answer: refused"):
        retry_while_unreachable(request)
