"""Endpoint containers that exit or no longer respond, and requests to them."""

import time
from itertools import pairwise
from types import SimpleNamespace

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.endpoints import container_replica
from microjobs_orchestrator.local.resources.models import client
from microjobs_orchestrator.local.runtimes.base import Exit
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.polling import wait_until

LOG_GROUP = "/aws/sagemaker/Endpoints/e"


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (
        ("PING_INTERVAL_SECONDS", 0.02),
        ("SILENCE_TIMEOUT_SECONDS", 0.3),
        ("FIRST_RESTART_DELAY_SECONDS", 0.05),
    ):
        monkeypatch.setattr(container_replica, name, seconds)


def test_silent_container_is_replaced(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy()
    (silent_host,) = parts.running_hosts
    model.unhealthy_hosts = {silent_host.name}
    wait_until(lambda: silent_host.has_ended)
    model.unhealthy_hosts = set()
    wait_until(lambda: parts.running_hosts)
    assert wait_until(lambda: _read_response(parts)) == b"x"
    (lines,) = parts.read_log(LOG_GROUP).values()
    assert "[microjobs] the container answered neither a request nor GET /ping with 200 for 0.3 s" in "".join(lines)


def test_container_that_accepts_connections_without_an_answer_is_replaced(
    parts: ServerParts, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PING_SECONDS", 0.05)
    parts.deploy()
    (silent_host,) = parts.running_hosts
    model.ping = None
    wait_until(lambda: silent_host.has_ended)
    model.ping = 200
    assert wait_until(lambda: _read_response(parts)) == b"x"


def test_container_that_responds_to_requests_is_not_replaced(
    parts: ServerParts, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0  # only the test moves this clock, so each response is in time even on a slow machine
    monkeypatch.setattr(container_replica, "time", SimpleNamespace(monotonic=lambda: now))
    parts.deploy()
    (busy_host,) = parts.running_hosts
    model.unhealthy_hosts = {busy_host.name}
    for _ in range(5):
        now += 0.2
        Invoker(parts)()
        time.sleep(0.1)  # in this time, some pings are sent
    assert parts.running_hosts == [busy_host]


def test_container_is_not_replaced_during_a_request(parts: ServerParts, model: ImageBehaviour) -> None:
    def respond_slowly(_: ReceivedRequest) -> Reply:
        model.unhealthy_hosts = set(hosts)
        time.sleep(1.0)
        model.unhealthy_hosts = set()
        return Reply(b"late")

    parts.deploy()
    hosts = [host.name for host in parts.running_hosts]
    model.invoke = respond_slowly
    assert Invoker(parts)().data == b"late"
    assert len(parts.runtime.started_hosts) == 1


def test_restart_delays_increase(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy()
    model.exit_at_start = Exit(1)
    parts.running_hosts[0].end(Exit(1))
    wait_until(lambda: len(parts.runtime.started_hosts) >= 5)
    start_times = [host.start_time for host in parts.runtime.started_hosts[1:5]]
    gaps = [later - earlier for earlier, later in pairwise(start_times)]
    assert gaps[0] >= 0.1
    assert gaps[1] >= 0.2
    assert gaps[2] >= 0.4


def test_restarting_container_refuses_requests(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy()
    model.ping = 503
    parts.running_hosts[0].end(Exit(1))
    wait_until(lambda: len(parts.runtime.started_hosts) == 2)
    with pytest.raises(ServiceError, match="ended and is restarting"):
        Invoker(parts)()


def _read_response(parts: ServerParts) -> bytes:
    try:
        return bytes(Invoker(parts)().data)
    except ServiceError:
        return b""
