"""Replicas of endpoints: hosts that serve a variant, and are started again when they end or stop responding."""

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import IO

from microjobs_orchestrator.local.lifecycle.attempt import Attempt, Outcome, launch_plan, prepare_plan
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import EventQueue, StopReason
from microjobs_orchestrator.local.lifecycle.hosts import SHUTDOWN_GRACE_PERIOD, HostGroup
from microjobs_orchestrator.local.resources.endpoints.streams import ResponseStream
from microjobs_orchestrator.local.resources.models.client import Answer, Body, Client, NoAnswerError
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError, wait_until_healthy
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, Line, Plan
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

FIRST_RESTART_DELAY, MAX_RESTART_DELAY = 1.0, 60.0
PING_INTERVAL = 5.0
"""Seconds between two requests to `/ping`: a container reports only by `/ping` that it is healthy."""
SILENCE_TIMEOUT = 60.0
"""A host that answers neither `/ping` with 200 nor a request is replaced after this number of seconds."""
LAST_LINES = 5
INVOCATIONS = "/invocations"


class RunningHost:
    """A running host, whose output a thread writes to the log until the host ends."""

    def __init__(self, attempt: Attempt, host: Host) -> None:
        self.host = host
        self._outcome = Outcome()
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._attempt = replace(attempt, on_line=self._add_line)
        self._follower = threading.Thread(target=self._follow, name=f"follow {host.name}", daemon=True)
        self._follower.start()

    def _follow(self) -> None:
        self._outcome = HostGroup(self._attempt, [self.host], EventQueue()).run()

    def _add_line(self, line: Line) -> None:
        self._last_lines.append(line.text.decode(errors="replace"))

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether the host ends within `timeout` seconds. If it ends, all its output is in the log."""
        self._follower.join(timeout)
        return not self._follower.is_alive()

    def describe_end(self) -> str:
        """Return the exit code, if the host has ended, and the last lines."""
        text = ""
        for ended in self._outcome.exits.values():
            text = f" Exit code: {ended.code}{f' ({ended.reason})' if ended.reason else ''}."
        lines = " | ".join(line for line in self._last_lines if line.strip())
        return f"{text} Its last lines: {lines}" if lines else f"{text} It wrote no log."


class Traffic:
    """The present requests to a host, from any thread. After `close`, the end of the last request calls `on_idle`."""

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._timeouts: Counter[float] = Counter()
        self.is_closed = False

    @contextlib.contextmanager
    def request(self, timeout: float) -> Iterator[None]:
        """Count one request, from its beginning to its end. Raise NoAnswerError after `close`."""
        with self._lock:
            if self.is_closed:
                raise NoAnswerError("the container is being replaced", was_sent=False)
            self._timeouts[timeout] += 1
        try:
            yield
        finally:
            self._finish(timeout)

    def _finish(self, timeout: float) -> None:
        with self._lock:
            self._timeouts -= Counter([timeout])  # `-=` also removes entries whose count is 0
            is_idle = self.is_closed and not self._timeouts
        if is_idle:
            self._on_idle()

    def close(self) -> None:
        with self._lock:
            self.is_closed = True

    def longest_timeout(self) -> float:
        """Return the longest timeout of the present requests, in seconds; 0 without requests."""
        with self._lock:
            return max(self._timeouts, default=0.0)


class Replica:
    """A serving host that is started again when it ends by itself or stops responding.

    The plan of `attempt` has one host, whose `/ping` must answer 200 within `startup_timeout` seconds. `on_change` is
    called each time that the host begins to serve, and when its last request ends after `traffic.close`.
    """

    def __init__(
        self, context: Context, attempt: Attempt, variant: str, startup_timeout: float, on_change: Callable[[], None]
    ) -> None:
        self.plan_name = attempt.plan_name
        self.variant = variant
        self.client: Client | None = None
        """None while the host does not serve."""
        self.traffic = Traffic(on_change)
        self._context = context
        self._attempt = attempt
        self._startup_timeout = startup_timeout
        self._on_change = on_change
        self._events = EventQueue()
        self._plan: Plan | None = None
        self._last_answer = 0.0
        """The time of the last answer, in seconds of the monotonic clock."""
        self._running: RunningHost | None = None
        self._keeper = threading.Thread(target=self._keep, name=self.plan_name, daemon=True)

    def start(self, host: Host | None = None) -> None:
        """Start the host, or resume with the running `host`; return when it serves.

        Raise CannotRunError if it cannot start or is not healthy (UnhealthyError), ServiceError if the model data does
        not exist any more, and StoppedError after `abandon`.
        """
        if host is None or not self._resume(host):
            self._launch()
        self._keeper.start()

    def _resume(self, host: Host) -> bool:
        try:
            self._wait_until_healthy(host)
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
        self._wait_until_healthy(hosts[0])

    def _wait_until_healthy(self, host: Host) -> None:
        self._running = running = RunningHost(self._attempt, host)
        try:
            self.client = wait_until_healthy(host, self._startup_timeout, self._events.stopped, lambda: running.wait(0))
        except UnhealthyError as error:
            raise UnhealthyError(f"{error}{running.describe_end()}") from error
        self._last_answer = time.monotonic()
        self._on_change()

    def _keep(self) -> None:
        """Start the host again each time that it ends or stops responding, with increasing delays."""
        delay, stopped = FIRST_RESTART_DELAY, self._events.stopped
        # Check `stopped` after each start: `stop` during a start does not end the host, but waits for this thread.
        while self._running is not None and not stopped.is_set():
            started = time.monotonic()
            reason = self._watch(self._running)
            if stopped.is_set():
                return
            if time.monotonic() - started > MAX_RESTART_DELAY:
                delay = FIRST_RESTART_DELAY
            self.note(f"the container {reason} and is started again in {delay:g} s.{self._running.describe_end()}")
            while not stopped.wait(delay) and not self._relaunch():
                delay = min(MAX_RESTART_DELAY, delay * 2)
            delay = min(MAX_RESTART_DELAY, delay * 2)

    def _watch(self, running: RunningHost) -> str:
        """Wait until the host has ended, or end it because it does not respond; return the reason."""
        while not running.wait(PING_INTERVAL):
            if self.client is not None and self.client.is_healthy():
                self._last_answer = time.monotonic()
            # A container that works on one request at a time cannot answer `/ping` during a request.
            timeout = max(SILENCE_TIMEOUT, self.traffic.longest_timeout())
            if time.monotonic() - self._last_answer > timeout and not self._events.stopped.is_set():
                self._close_client()
                self._end(running)
                return f"answered neither a request nor GET /ping with 200 for {timeout:g} s"
        self._close_client()
        return "ended by itself"

    def _end(self, running: RunningHost) -> None:
        """End a host that may ignore signals."""
        try:
            running.host.stop(SHUTDOWN_GRACE_PERIOD)
        except Exception:
            logger.exception("%s could not be stopped, and is removed", self.plan_name)
        if not running.wait(SHUTDOWN_GRACE_PERIOD):
            self._context.runtime.remove(self.plan_name)
            running.wait()

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

    def _close_client(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def invoke(
        self,
        body: Body,
        headers: Mapping[str, str],
        *,
        timeout: float,
        into: IO[bytes],
        max_bytes: float = float("inf"),
    ) -> Answer:
        """Send a request to the model. Raise as `Client.request` does, and NoAnswerError while the host restarts."""
        with self._request(timeout) as client:
            return client.request("POST", INVOCATIONS, body, headers, timeout=timeout, into=into, max_bytes=max_bytes)

    def stream(self, body: Body, headers: Mapping[str, str], *, timeout: float) -> ResponseStream:
        """Send a request to the model, and return its response as soon as the headers have arrived.

        Raise NoAnswerError as `invoke` does.
        """
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(self._request(timeout))
            response = client.open("POST", INVOCATIONS, body, headers, timeout=timeout)
            return ResponseStream(response, on_close=stack.pop_all().close)

    @contextlib.contextmanager
    def _request(self, timeout: float) -> Iterator[Client]:
        """Yield the client for one request. Raise NoAnswerError while the host restarts."""
        with self.traffic.request(timeout):
            if (client := self.client) is None:
                raise NoAnswerError("the container is restarting", was_sent=False)
            yield client
            # Set before the request ends, because `_watch` must see either the request or the new time.
            self._last_answer = time.monotonic()

    def abandon(self) -> None:
        """Make a waiting `start` raise StoppedError; call `stop` afterwards."""
        self._events.stop(StopReason.FINISHED)

    def stop(self, grace: float) -> None:
        """End the host with SIGTERM, and with SIGKILL after `grace` seconds; remove its container and its files."""
        self._events.stop(StopReason.FINISHED)
        if self._running is not None and self.client is not None:
            self._running.host.stop(grace)
        if self._keeper.is_alive():
            self._keeper.join()
        self._context.runtime.remove(self.plan_name)
        if self._running is not None:
            self._running.wait()
        self._close_client()
        discard(self._context.work_folder(self.plan_name))

    def note(self, sentence: str) -> None:
        logger.info("%s: %s", self.plan_name, sentence)
        self._attempt.open_stream("").note(sentence)
