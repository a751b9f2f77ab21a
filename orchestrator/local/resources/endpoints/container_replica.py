"""Replicas of endpoints: hosts that serve a variant, and are started again when they end or stop responding."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.attempt import Attempt, launch_plan, prepare_plan
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import EventQueue, StopReason
from microjobs_orchestrator.local.lifecycle.hosts import SHUTDOWN_GRACE_PERIOD
from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest
from microjobs_orchestrator.local.resources.endpoints.routes import make_route
from microjobs_orchestrator.local.resources.endpoints.running_hosts import RunningHosts
from microjobs_orchestrator.local.resources.endpoints.streams import ResponseStream
from microjobs_orchestrator.local.resources.endpoints.traffic import Traffic
from microjobs_orchestrator.local.resources.models.chain import send
from microjobs_orchestrator.local.resources.models.client import Answer, Client, NoAnswerError
from microjobs_orchestrator.local.resources.models.containers import list_names
from microjobs_orchestrator.local.resources.models.health import connect
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, Plan
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

FIRST_RESTART_DELAY, MAX_RESTART_DELAY = 1.0, 60.0
PING_INTERVAL = 5.0
"""Seconds between two requests to `/ping`: a container reports only by `/ping` that it is healthy."""
SILENCE_TIMEOUT = 60.0
"""A host that answers neither `/ping` with 200 nor a request is replaced after this number of seconds."""
INVOCATIONS = "/invocations"


class ContainerReplica:
    """The hosts of one instance, all containers of a model. They are started again when one ends or stops responding.

    The `/ping` of each host in the plan of `attempt` must answer 200 within `startup_timeout` seconds. `on_change` is
    called each time that the hosts begin to serve, and when the last request ends after `traffic.close`.

    Args:
        model: the CreateModel request.
        attempt: starts the hosts of the model on one instance.
    """

    def __init__(
        self,
        context: Context,
        model: Mapping[str, Any],
        attempt: Attempt,
        variant: str,
        instance_id: str,
        startup_timeout: float,
        on_change: Callable[[], None],
    ) -> None:
        self.plan_name = attempt.plan_name
        self.variant = variant
        self.instance_id = instance_id
        self.traffic = Traffic(on_change)
        self.starts = 0
        """How often the hosts have begun to serve. A container that was started again has lost its state."""
        self._clients: Sequence[Client] = ()
        """Clients of the containers, in the order of the model; empty while a host does not serve."""
        self._context = context
        self._attempt = attempt
        self._startup_timeout = startup_timeout
        self._on_change = on_change
        self._containers = list_names(model)
        self._route = make_route(model, context.home.work)
        self._events = EventQueue()
        self._plan: Plan | None = None
        self._last_answers: dict[str, float] = {}
        """The times of the last answers by container, in seconds of the monotonic clock."""
        self._running: RunningHosts | None = None
        self._keeper = threading.Thread(target=self._keep, name=self.plan_name, daemon=True)

    def start(self, hosts: Sequence[Host] = ()) -> None:
        if len(hosts) != len(self._containers) or not self._resume(hosts):
            self._launch()
        self._keeper.start()

    def _resume(self, hosts: Sequence[Host]) -> bool:
        try:
            self._wait_until_healthy(hosts)
        except UnhealthyError as error:
            self.note(f"the container of the earlier server does not serve, and is started again: {error}")
            return False
        return True

    def _launch(self) -> None:
        self._context.runtime.remove(self.plan_name)
        if self._plan is None:  # made once: the model may be deleted while it serves
            self._plan = prepare_plan(self._context, self._attempt)
        if not (hosts := launch_plan(self._context, self._attempt, self._plan, self._events)):
            raise StoppedError
        self._wait_until_healthy(hosts)

    def _wait_until_healthy(self, hosts: Sequence[Host]) -> None:
        hosts = sorted(hosts, key=lambda host: host.name)  # the order of the containers
        self._running = running = RunningHosts(self._attempt, hosts)
        seconds, stopped = self._startup_timeout, self._events.stopped
        try:
            clients = connect(hosts, self._containers, seconds, stopped, lambda: running.wait_for_one(0))
        except UnhealthyError as error:
            number = self._containers.index(error.container) if running.first_ended is None else running.first_ended
            raise UnhealthyError(f"{error}{running.describe_end(number)}", self._containers[number]) from error
        self._mark_answers(self._containers)
        self._clients = clients
        self.starts += 1
        self._on_change()

    def _keep(self) -> None:
        """Start the host again each time that it ends or stops responding, with increasing delays."""
        delay, stopped = FIRST_RESTART_DELAY, self._events.stopped
        # Check `stopped` after each start: `stop` during a start does not end the host, but waits for this thread.
        while self._running is not None and not stopped.is_set():
            started = time.monotonic()
            number, reason = self._watch(self._running)
            if stopped.is_set():
                return
            if time.monotonic() - started > MAX_RESTART_DELAY:
                delay = FIRST_RESTART_DELAY
            reason = f"{reason} and is started again in {delay:g} s.{self._running.describe_end(number)}"
            self.note(reason, self._running.hosts[number].name)
            while not stopped.wait(delay) and not self._relaunch():
                delay = min(MAX_RESTART_DELAY, delay * 2)
            delay = min(MAX_RESTART_DELAY, delay * 2)

    def _watch(self, running: RunningHosts) -> tuple[int, str]:
        """Wait until a host has ended, or end all because one does not respond; return its number and the reason."""
        while not running.wait_for_one(PING_INTERVAL):
            clients = dict(zip(self._containers, self._clients, strict=True))
            self._mark_answers([name for name, client in clients.items() if client.is_healthy()])
            # A container that works on one request at a time cannot answer `/ping` during a request.
            timeout = max(SILENCE_TIMEOUT, self.traffic.longest_timeout())
            silent = self._find_silent(timeout)
            if silent is not None and not self._events.stopped.is_set():
                self._close_clients()
                self._end(running)
                reason = f"answered neither a request nor GET /ping with 200 for {timeout:g} s"
                return silent, f"{self._name(silent)} {reason}"
        self._close_clients()
        ended = running.first_ended or 0
        if not self._events.stopped.is_set():
            self._end(running)
        return ended, f"{self._name(ended)} ended by itself"

    def _mark_answers(self, containers: Iterable[str]) -> None:
        self._last_answers.update(dict.fromkeys(containers, time.monotonic()))

    def _find_silent(self, timeout: float) -> int | None:
        """Return the number of the first container that has not answered for `timeout` seconds; None if all have."""
        times = [time.monotonic() - self._last_answers[name] for name in self._containers]
        return next((number for number, seconds in enumerate(times) if seconds > timeout), None)

    def _name(self, number: int) -> str:
        return "the container" if len(self._containers) == 1 else f"the container {self._containers[number]}"

    def _end(self, running: RunningHosts) -> None:
        """End hosts that may ignore signals."""
        try:
            running.stop(SHUTDOWN_GRACE_PERIOD)
        except Exception:
            logger.exception("%s could not be stopped, and is removed", self.plan_name)
        if not running.wait_for_all(SHUTDOWN_GRACE_PERIOD):
            self._context.runtime.remove(self.plan_name)
            running.wait_for_all()

    def _relaunch(self) -> bool:
        try:
            self._launch()
        except StoppedError:
            return False
        except Exception as error:
            if not isinstance(error, CannotRunError):
                logger.exception("%s could not be started again", self.plan_name)
            self.note(f"the container could not be started again: {error}")
            return False
        return True

    def _close_clients(self) -> None:
        clients, self._clients = self._clients, ()
        _close(clients)

    def invoke(self, request: InferenceRequest, into: IO[bytes]) -> Answer:
        self._refuse_target_model(request)
        with self._request(request.timeout, request.target.container) as clients:
            limits = {"timeout": request.timeout, "max_bytes": request.max_bytes}
            return send(self._route(clients, request), INVOCATIONS, request.body, request.headers, into=into, **limits)

    def stream(self, request: InferenceRequest) -> ResponseStream:
        with contextlib.ExitStack() as stack:
            clients = stack.enter_context(self._request(request.timeout, request.target.container))
            response = self._route(clients, request).open(
                "POST", INVOCATIONS, request.body, request.headers, timeout=request.timeout
            )
            return ResponseStream(response, on_close=stack.pop_all().close)

    def _refuse_target_model(self, request: InferenceRequest) -> None:
        if request.target.model is not None and request.model is None:
            endpoint = self.plan_name.split("/")[1]
            raise ServiceError(
                "ValidationError",
                f"Endpoint {endpoint} is not a multi-model endpoint and does not support target model header.",
            )

    def send(
        self, path: str, request: InferenceRequest, into: IO[bytes], container: int = 0, *, method: str = "POST"
    ) -> Answer:
        """Send a request to a path of a container, which is numbered from 0. Raise as `invoke` does."""
        with self._request(request.timeout) as clients:
            return clients[container].request(
                method,
                path,
                request.body,
                request.headers,
                timeout=request.timeout,
                into=into,
                max_bytes=request.max_bytes,
            )

    def add_folder(self, source: Path, path: str, container: int = 0) -> None:
        """Copy a folder to a path of a container. Raise the errors of `Host.add_folder`, and NoAnswerError."""
        self._find_host(container).add_folder(source, path)

    def remove_folder(self, path: str, container: int = 0) -> None:
        """Remove a folder of a container, if it exists. Raise NoAnswerError."""
        self._find_host(container).remove_folder(path)

    def _find_host(self, container: int) -> Host:
        if self._running is None or not self._clients:
            raise _make_restart_error()
        return self._running.hosts[container]

    @contextlib.contextmanager
    def _request(self, timeout: float, container: str | None = None) -> Iterator[Sequence[Client]]:
        """Yield the clients for one request. Raise NoAnswerError while the hosts restart.

        Args:
            container: the name of the container that answers; None: all containers answer.
        """
        with self.traffic.request(timeout):
            if not (clients := self._clients):
                raise _make_restart_error()
            yield clients
            # Set before the request ends, because `_watch` must see either the request or the new time.
            self._mark_answers(self._containers if container is None else [container])

    def abandon(self) -> None:
        self._events.stop(StopReason.FINISHED)

    def stop(self, grace: float) -> None:
        self._events.stop(StopReason.FINISHED)
        if self._running is not None and self._clients:
            self._running.stop(grace)
        if self._keeper.is_alive():
            self._keeper.join()
        self._context.runtime.remove(self.plan_name)
        if self._running is not None:
            self._running.wait_for_all()
        self._close_clients()
        discard(self._context.work_folder(self.plan_name))

    def note(self, sentence: str, host: str = "") -> None:
        """Write a sentence to the logs of the server and of a host, by default the first one."""
        logger.info("%s: %s", self.plan_name, sentence)
        self._attempt.open_stream(host).note(sentence)


def _make_restart_error() -> NoAnswerError:
    return NoAnswerError("the container is restarting", was_sent=False)


def _close(clients: Sequence[Client]) -> None:
    for client in clients:
        client.close()
