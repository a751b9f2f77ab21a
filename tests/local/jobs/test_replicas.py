"""Containers of endpoints that end or fall silent, and what is asked of them meanwhile."""

import time
from itertools import pairwise
from types import SimpleNamespace

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.endpoints import replicas
from microjobs_orchestrator.local.runtimes.base import Exit
from tests.local.jobs.conftest import ServerParts, wait_until
from tests.local.jobs.fakes import Asked, Model, Reply
from tests.local.jobs.test_endpoints_invocations import Invoker

GROUP = "/aws/sagemaker/Endpoints/e"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("PING_INTERVAL", 0.02), ("SILENCE_TIMEOUT", 0.3), ("FIRST_RESTART_DELAY", 0.05)):
        monkeypatch.setattr(replicas, name, seconds)


def test_silent_container_is_replaced(parts: ServerParts, model: Model) -> None:
    parts.serve()
    (silent,) = parts.running
    model.unhealthy = {silent.name}
    wait_until(lambda: silent.has_ended)
    model.unhealthy = set()
    wait_until(lambda: parts.running)
    assert wait_until(lambda: _answered(parts)) == b"x"
    (lines,) = parts.log(GROUP).values()
    assert "[microjobs] the container answered neither GET /ping with 200 nor a request for 0.3 s" in "".join(lines)


def test_container_that_answers_requests_is_kept(
    parts: ServerParts, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0  # each answer comes in time, however long it takes here
    monkeypatch.setattr(replicas, "time", SimpleNamespace(monotonic=lambda: now))
    parts.serve()
    (busy,) = parts.running
    model.unhealthy = {busy.name}
    for _ in range(5):
        now += 0.2
        Invoker(parts)()
        time.sleep(0.1)  # some looks of the keeper
    assert parts.running == [busy]


def test_container_is_not_silent_while_it_may_answer(parts: ServerParts, model: Model) -> None:
    def slow(_: Asked) -> Reply:
        model.unhealthy = set(hosts)
        time.sleep(1.0)
        model.unhealthy = set()
        return Reply(b"late")

    parts.serve()
    hosts = [host.name for host in parts.running]
    model.invoke = slow
    assert Invoker(parts)().data == b"late"
    assert len(parts.runtime.ever) == 1


def test_restart_delays_increase(parts: ServerParts, model: Model) -> None:
    parts.serve()
    model.exits = Exit(1)
    parts.running[0].end(Exit(1))
    wait_until(lambda: len(parts.runtime.ever) >= 5)
    began = [host.began for host in parts.runtime.ever[1:5]]
    gaps = [later - earlier for earlier, later in pairwise(began)]
    assert gaps[0] >= 0.1
    assert gaps[1] >= 0.2
    assert gaps[2] >= 0.4


def test_restarting_container_takes_no_requests(parts: ServerParts, model: Model) -> None:
    parts.serve()
    model.ping = 503
    parts.running[0].end(Exit(1))
    wait_until(lambda: len(parts.runtime.ever) == 2)
    with pytest.raises(ServiceError, match="ended and is being started again"):
        Invoker(parts)()


def _answered(parts: ServerParts) -> bytes:
    try:
        return bytes(Invoker(parts)().data)
    except ServiceError:
        return b""
