"""Waits until the containers of a model are healthy.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from http import HTTPStatus

from microjobs.contract import BIND_TO_PORT_VARIABLE
from microjobs_orchestrator.local.resources.models.client import PING_SECONDS, PRIMARY, Client, NoResponseError
from microjobs_orchestrator.local.resources.models.containers import PORT
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError
from microjobs_orchestrator.local.runtimes.base import Host, WrongPortError

WRONG_PORT_TIMEOUT = 5.0
"""Seconds until a container that listens on the wrong port is unhealthy."""
FIRST_PING_DELAY, MAX_PING_DELAY = 0.1, 1.0
"""The first and the maximum delay between two requests to `/ping`, in seconds. Each delay is longer than the previous
one, up to the maximum."""


def connect_when_healthy(
    hosts: Sequence[Host],
    names: Sequence[str],
    seconds: float,
    stopping: threading.Event,
    has_ended: Callable[[], bool] = lambda: False,
) -> list[Client]:
    """Return clients of hosts when `/ping` of each host answers 200. Requests are repeated with increasing delays.

    Args:
        names: the names of the hosts' containers, for errors.
        has_ended: returns whether one of the hosts has ended.

    Raises:
        UnhealthyError: a host has ended, listens on the wrong port, or does not answer 200 within `seconds`.
        StoppedError: `stopping` is set.
    """
    deadline = time.monotonic() + seconds
    with ExitStack() as cleanup:
        clients = []
        for host, name in zip(hosts, names, strict=True):
            if (client := _wait_until_healthy(host, name, deadline, stopping, has_ended)) is None:
                raise _make_unhealthy_error(name, None if has_ended() else seconds)
            clients.append(cleanup.enter_context(closing(client)))
        cleanup.pop_all()
    return clients


def _make_unhealthy_error(container: str, seconds: float | None) -> UnhealthyError:
    """Return the error of a container that was not healthy within `seconds`.

    `seconds` is None if one of the hosts has ended.
    """
    if seconds is None:
        return UnhealthyError("The container ended before GET /ping answered 200.", container)
    message = f"GET /ping did not answer 200 within {seconds:g} s."
    if container != PRIMARY:
        message = (
            f"{message} Each of several containers must listen on the port of the variable {BIND_TO_PORT_VARIABLE}."
        )
    return UnhealthyError(message, container)


def _wait_until_healthy(
    host: Host, container: str, deadline: float, stopping: threading.Event, has_ended: Callable[[], bool]
) -> Client | None:
    """Return a client of a healthy host; None if one of the hosts has ended, or the deadline has passed.

    Raise UnhealthyError if the host listens on the wrong port for longer than WRONG_PORT_TIMEOUT. For a shorter time,
    the host may use this port for another purpose.
    """
    delay, wrong_port_since = FIRST_PING_DELAY, math.inf
    while not has_ended() and time.monotonic() < deadline:
        client = Client(host.connect)
        try:
            if _ping(client):
                return client
            wrong_port_since = math.inf
        except WrongPortError as error:
            wrong_port_since = min(wrong_port_since, time.monotonic())
            if time.monotonic() - wrong_port_since > WRONG_PORT_TIMEOUT:
                message = (
                    f"It listens on port {PORT}, but each of several containers must listen on the port of the "
                    f"variable {BIND_TO_PORT_VARIABLE}."
                )
                raise UnhealthyError(message, container) from error
        client.close()
        if stopping.wait(delay):
            raise StoppedError
        delay = min(MAX_PING_DELAY, delay * 1.2)
    return None


def _ping(client: Client) -> bool:
    """Return whether `/ping` answers 200 in time. Raise WrongPortError."""
    try:
        return client.request("GET", "/ping", timeout=PING_SECONDS).status == HTTPStatus.OK
    except NoResponseError as error:
        if isinstance(error.__cause__, WrongPortError):
            raise error.__cause__ from error
        return False
