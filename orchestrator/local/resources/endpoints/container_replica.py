"""Replicas of endpoints: hosts that serve a variant, and are started again when they end or stop responding."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.attempt import Attempt, launch_plan, prepare_plan
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import EventQueue, StopReason
from microjobs_orchestrator.local.lifecycle.hosts import SHUTDOWN_GRACE_PERIOD
from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.endpoints.routes import make_route
from microjobs_orchestrator.local.resources.endpoints.running_hosts import RunningHosts
from microjobs_orchestrator.local.resources.endpoints.streams import ResponseStream
from microjobs_orchestrator.local.resources.endpoints.traffic import Traffic
from microjobs_orchestrator.local.resources.models.chain import send
from microjobs_orchestrator.local.resources.models.client import Client, NoResponseError, ResponseHead
from microjobs_orchestrator.local.resources.models.containers import list_names
from microjobs_orchestrator.local.resources.models.health import connect_when_healthy
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, Plan
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

FIRST_RESTART_DELAY_SECONDS, MAX_RESTART_DELAY_SECONDS = 1.0, 60.0
"""The first and the longest delay before the hosts are started again, in seconds. The delay doubles with each start. If
the hosts have run for longer than the longest delay, the next delay is the first one."""
PING_INTERVAL_SECONDS = 5.0
"""Seconds between two requests to `/ping`. The server must ask, because no container reports by itself that it is
healthy."""
SILENCE_TIMEOUT_SECONDS = 60.0
"""If a container answers neither `/ping` with 200 nor a request for this number of seconds, all hosts are started
again. While a request with a longer timeout is in progress, that timeout applies instead."""
INVOCATIONS_PATH = "/invocations"


class ContainerReplica:
    """The hosts of one instance: one host per container of a model. If one host ends or stops responding, all hosts are
    started again.

    The `/ping` of each host in the plan of `attempt` must answer 200 within `startup_timeout` seconds. `on_change` is
    called each time that the hosts start or stop serving, and when the last request ends after `traffic.close`.

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
        self.start_count = 0
        """The number of times that the hosts have begun to serve. A container that was started again has lost its
        state."""
        self._clients: Sequence[Client] = ()
        """Clients of the containers, in the order of the model; empty while a host does not serve."""
        self._context = context
        self._attempt = attempt
        self._startup_timeout = startup_timeout
        self._on_change = on_change
        self._container_names = list_names(model)
        self._route = make_route(model, context.home.work)
        self._events = EventQueue()
        self._plan: Plan | None = None
        self._last_answer_times: dict[str, float] = {}
        """The times of the last answers by container, in seconds of the monotonic clock."""
        self._running_hosts: RunningHosts | None = None
        self._restart_thread = threading.Thread(target=self._restart_hosts, name=self.plan_name, daemon=True)

    def start(self, hosts: Sequence[Host] = ()) -> None:
        if len(hosts) != len(self._container_names) or not self._resume(hosts):
            self._launch()
        self._restart_thread.start()

    def _resume(self, hosts: Sequence[Host]) -> bool:
        try:
            self._wait_until_healthy(hosts)
        except UnhealthyError as error:
            self.note(f"the container of the earlier server does not serve, and is started again: {error}")
            return False
        return True

    def _launch(self) -> None:
        self._context.runtime.remove(self.plan_name)
        if self._plan is None:  # the plan is made only once, because the model may be deleted while it serves
            self._plan = self._prepare_plan()
        if not (hosts := launch_plan(self._context, self._attempt, self._plan, self._events)):
            raise StoppedError
        self._wait_until_healthy(hosts)

    def _prepare_plan(self) -> Plan:
        try:
            return prepare_plan(self._context, self._attempt, self._events)
        except CannotRunError:
            if self._events.stopped.is_set():  # the stop ended the pull of an image
                raise StoppedError from None
            raise

    def _wait_until_healthy(self, hosts: Sequence[Host]) -> None:
        """Wait until the containers of started hosts are healthy, and begin to serve.

        Raise UnhealthyError with the exit code and the last lines of the host that failed.
        """
        hosts = sorted(hosts, key=lambda host: host.name)  # the order of the containers in the model
        self._running_hosts = running_hosts = RunningHosts(self._attempt, hosts)
        seconds, stopped = self._startup_timeout, self._events.stopped
        try:
            clients = connect_when_healthy(
                hosts,
                self._container_names,
                seconds,
                stopped,
                has_ended=lambda: running_hosts.wait_for_first_end(timeout=0),
            )
        except UnhealthyError as error:
            # If a host has ended, its end is the cause, even if the error is about another container.
            index = (
                self._container_names.index(error.container)
                if running_hosts.first_ended_index is None
                else running_hosts.first_ended_index
            )
            raise UnhealthyError(f"{error}{running_hosts.describe_end(index)}", self._container_names[index]) from error
        self._mark_answers(self._container_names)
        self._clients = clients
        self.start_count += 1
        self._on_change()

    def _restart_hosts(self) -> None:
        """Start the hosts again each time that one of them ends or stops responding, with increasing delays."""
        delay, stopped = FIRST_RESTART_DELAY_SECONDS, self._events.stopped
        # `stop` does not end hosts that are starting, and waits for this thread. So check `stopped` after each start.
        while self._running_hosts is not None and not stopped.is_set():
            start_time = time.monotonic()
            index, reason = self._watch(self._running_hosts)
            if stopped.is_set():
                return
            if time.monotonic() - start_time > MAX_RESTART_DELAY_SECONDS:
                delay = FIRST_RESTART_DELAY_SECONDS
            sentence = f"{reason} and is started again in {delay:g} s.{self._running_hosts.describe_end(index)}"
            self.note(sentence, self._running_hosts.hosts[index].name)
            self._on_change()
            while not stopped.wait(delay) and not self._relaunch():
                delay = min(MAX_RESTART_DELAY_SECONDS, delay * 2)
            delay = min(MAX_RESTART_DELAY_SECONDS, delay * 2)

    def _watch(self, running_hosts: RunningHosts) -> tuple[int, str]:
        """Wait until a host ends or stops responding, then end all hosts. Return that host's index and the reason.

        During `stop`, do not end the other hosts, because `stop` ends them.
        """
        while not running_hosts.wait_for_first_end(PING_INTERVAL_SECONDS):
            clients = dict(zip(self._container_names, self._clients, strict=True))
            self._mark_answers([name for name, client in clients.items() if client.is_healthy()])
            # A container that works on one request at a time cannot answer `/ping` during a request. Therefore, the
            # container may be silent for the longest timeout of the requests in progress.
            timeout = max(SILENCE_TIMEOUT_SECONDS, self.traffic.find_longest_timeout())
            silent_index = self._find_silent_index(timeout)
            if silent_index is not None and not self._events.stopped.is_set():
                self._close_clients()
                self._end_hosts(running_hosts)
                reason = f"answered neither a request nor GET /ping with 200 for {timeout:g} s"
                return silent_index, f"{self._describe_container(silent_index)} {reason}"
        self._close_clients()
        ended_index = running_hosts.first_ended_index or 0
        if not self._events.stopped.is_set():
            self._end_hosts(running_hosts)
        return ended_index, f"{self._describe_container(ended_index)} ended by itself"

    def _mark_answers(self, containers: Iterable[str]) -> None:
        """Store the current time as the time of the last answer of some containers."""
        self._last_answer_times.update(dict.fromkeys(containers, time.monotonic()))

    def _find_silent_index(self, timeout: float) -> int | None:
        """Return the index of the first container that has not answered for `timeout` seconds; None if all have
        answered."""
        silent_seconds = [time.monotonic() - self._last_answer_times[name] for name in self._container_names]
        return next((index for index, seconds in enumerate(silent_seconds) if seconds > timeout), None)

    def _describe_container(self, index: int) -> str:
        return "the container" if len(self._container_names) == 1 else f"the container {self._container_names[index]}"

    def _end_hosts(self, running_hosts: RunningHosts) -> None:
        """End hosts, even if they ignore signals."""
        try:
            running_hosts.stop(SHUTDOWN_GRACE_PERIOD)
        except Exception:
            logger.exception("%s could not be stopped, and is removed", self.plan_name)
        if not running_hosts.wait_for_all_ends(SHUTDOWN_GRACE_PERIOD):
            self._context.runtime.remove(self.plan_name)
            running_hosts.wait_for_all_ends()

    def _relaunch(self) -> bool:
        """Start the hosts again; return whether they serve."""
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

    def invoke(self, request: InferenceRequest, into: IO[bytes]) -> ResponseHead:
        self._refuse_target_model(request)
        limits = {"timeout": request.timeout, "max_bytes": request.max_bytes}
        with self.traffic.count_request(request.timeout):
            sender = self._route(self._get_clients(), request)
            response = send(sender, INVOCATIONS_PATH, request.body, request.headers, into=into, **limits)
            self._mark_invocation_answer(request.target.container)
        return response

    def stream(self, request: InferenceRequest) -> ResponseStream:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.traffic.count_request(request.timeout))
            response = self._route(self._get_clients(), request).open(
                "POST", INVOCATIONS_PATH, request.body, request.headers, timeout=request.timeout
            )
            stack.callback(self._mark_invocation_answer, request.target.container)
            return ResponseStream(response, on_close=stack.pop_all().close)

    def _refuse_target_model(self, request: InferenceRequest) -> None:
        if request.target.model is not None and request.model is None:
            arn_type, name, *_ = self.plan_name.split("/")
            problem = "is not a multi-model endpoint and does not support target model header."
            if arn_type != ENDPOINT.arn_type:
                raise ServiceError("ValidationError", f"Inference Component {name} {problem}")
            raise ServiceError("ValidationError", f"Endpoint {name} {problem}")

    def send(
        self, path: str, request: InferenceRequest, into: IO[bytes], container_index: int = 0, *, method: str = "POST"
    ) -> ResponseHead:
        """Send a request to a path of one container. The first container has the index 0. Raise as `invoke` does."""
        limits = {"timeout": request.timeout, "max_bytes": request.max_bytes}
        with self.traffic.count_request(request.timeout):
            client = self._get_clients()[container_index]
            response = client.request(method, path, request.body, request.headers, into=into, **limits)
            self._mark_answers([self._container_names[container_index]])
        return response

    def add_folder(self, source: Path, path: str, container_index: int = 0) -> None:
        """Copy a folder to a path of a container.

        Raise the errors of `Host.add_folder`. Raise NoResponseError while the hosts restart.
        """
        self._find_host(container_index).add_folder(source, path)

    def remove_folder(self, path: str, container_index: int = 0) -> None:
        """Remove a folder of a container, if it exists. Raise NoResponseError while the hosts restart."""
        self._find_host(container_index).remove_folder(path)

    def _find_host(self, container_index: int) -> Host:
        if self._running_hosts is None or not self._clients:
            raise _make_restart_error()
        return self._running_hosts.hosts[container_index]

    @property
    def is_serving(self) -> bool:
        return bool(self._clients)

    def _get_clients(self) -> Sequence[Client]:
        """Return the clients of the containers. Raise NoResponseError while the hosts restart."""
        if not (clients := self._clients):
            raise _make_restart_error()
        return clients

    def _mark_invocation_answer(self, container: str | None) -> None:
        """Store the time of the answer to an invocation of a container, or of all containers (None).

        Call this before the request ends: at each time, `_watch` must see the open request or the time of its answer.
        """
        self._mark_answers(self._container_names if container is None else [container])

    def abandon(self) -> None:
        self._events.stop(StopReason.FINISHED)

    def stop(self, grace: float) -> None:
        self._events.stop(StopReason.FINISHED)
        if self._running_hosts is not None and self._clients:
            self._running_hosts.stop(grace)
        if self._restart_thread.is_alive():
            self._restart_thread.join()
        self._context.runtime.remove(self.plan_name)
        if self._running_hosts is not None:
            self._running_hosts.wait_for_all_ends()
        self._close_clients()
        discard(self._context.get_work_folder(self.plan_name))

    def note(self, sentence: str, host: str = "") -> None:
        """Write a sentence to the logs of the server and of a host, by default the first host."""
        logger.info("%s: %s", self.plan_name, sentence)
        self._attempt.open_stream(host).note(sentence)


def _make_restart_error() -> NoResponseError:
    return NoResponseError("the container is restarting", was_sent=False)


def _close(clients: Sequence[Client]) -> None:
    for client in clients:
        client.close()
