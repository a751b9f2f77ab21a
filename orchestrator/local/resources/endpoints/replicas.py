"""Replicas of endpoints: containers that are followed, invoked, watched, and started again when they fail."""

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import IO

from microjobs_orchestrator.local.lifecycle import attempt as attempts
from microjobs_orchestrator.local.lifecycle.attempt import Attempt
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.control import Control, StopReason
from microjobs_orchestrator.local.lifecycle.hosts import SHUTDOWN_GRACE_PERIOD
from microjobs_orchestrator.local.resources.models.client import Answer, Body, Client, NoAnswerError
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError, wait_until_healthy
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Host, Line, Plan
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

INVOCATIONS = "/invocations"
FIRST_RESTART_DELAY, MAX_RESTART_DELAY = 1.0, 60.0
PING_INTERVAL = 5.0
"""Seconds. A container reports by `/ping` alone that it is healthy."""
SILENCE_TIMEOUT = 60.0
"""Seconds after which a container is replaced that answers neither `/ping` with 200 nor a request."""
LAST_LINES = 5


class Life:
    """A container from its start to its end. Its output is written to the log meanwhile."""

    def __init__(self, attempt: Attempt, host: Host) -> None:
        self.host = host
        self.exit: Exit | None = None
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._attempt = replace(attempt, on_line=self._add_line)
        self._follower = threading.Thread(target=self._follow, name=f"follow {host.name}", daemon=True)
        self._follower.start()

    def _follow(self) -> None:
        outcome = attempts.follow(self._attempt, [self.host], Control())
        self.exit = outcome.exits[self.host.name]

    def _add_line(self, line: Line) -> None:
        self._last_lines.append(line.text.decode(errors="replace"))

    def has_ended(self) -> bool:
        return not self._follower.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether the container ends within `timeout` seconds; then all its output is in the log."""
        self._follower.join(timeout)
        return self.has_ended()

    def describe_end(self) -> str:
        """Return the exit code, if there is one, and the last lines."""
        exited = self.exit
        reason = f" ({exited.reason})" if exited and exited.reason else ""
        code = f" Exit code: {exited.code}{reason}." if exited else ""
        lines = " | ".join(line for line in self._last_lines if line.strip())
        return f"{code} Its last lines: {lines}" if lines else f"{code} It wrote no log."


class Traffic:
    """The requests that a container is answering. Methods may be called from any thread.

    Args:
        on_idle: called when a container that takes no new requests has answered its last one.
    """

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._timeouts: Counter[float] = Counter()
        self.is_closed = False

    @contextlib.contextmanager
    def request(self, timeout: float) -> Iterator[None]:
        """Count one request, from its beginning to its end.

        Raises:
            NoAnswerError: the container takes no new requests.
        """
        with self._lock:
            if self.is_closed:
                raise NoAnswerError("the container takes no requests any more", was_sent=False)
            self._timeouts[timeout] += 1
        try:
            yield
        finally:
            self._finish(timeout)

    def _finish(self, timeout: float) -> None:
        with self._lock:
            self._timeouts[timeout] -= 1
            self._timeouts += Counter()  # removes counts of 0
            is_idle = self.is_closed and not self._timeouts
        if is_idle:
            self._on_idle()

    def close(self) -> None:
        """Take no new requests."""
        with self._lock:
            self.is_closed = True

    def longest(self) -> float:
        """Return the longest timeout of the present requests, in seconds; 0 without requests."""
        with self._lock:
            return max(self._timeouts, default=0.0)


class Replica:
    """A container that serves, and is started again when it ends by itself or stops answering.

    Args:
        attempt: what to run; its plan has one host.
        startup_timeout: seconds until `/ping` must answer.
        on_change: called when the container serves again, and when it has answered its last request after `close`.
    """

    def __init__(
        self, context: Context, attempt: Attempt, startup_timeout: float, on_change: Callable[[], None]
    ) -> None:
        self.plan_name = attempt.plan_name
        self.client: Client | None = None
        """None while the container does not serve."""
        self._context = context
        self._attempt = attempt
        self._startup_timeout = startup_timeout
        self._on_change = on_change
        self._control = Control()
        self._plan: Plan | None = None
        self._traffic = Traffic(on_change)
        self._last_sign = 0.0
        """When the container answered last, in seconds of the monotonic clock."""
        self._life: Life | None = None
        self._keeper = threading.Thread(target=self._keep, name=self.plan_name, daemon=True)

    def start(self, host: Host | None = None) -> None:
        """Start the container, or resume with one that is running; return when it serves.

        Raises:
            CannotRunError: it cannot start, or is not healthy (`UnhealthyError`).
            ServiceError: the model's data is gone.
            StoppedError: `abandon` was called.
        """
        if host is None or not self._resume(host):
            self._launch()
        self._keeper.start()

    def _resume(self, host: Host) -> bool:
        try:
            self._attend(host)
        except UnhealthyError as error:
            self.note(f"the container of the server before does not serve, and is started again: {error}")
            return False
        return True

    def _launch(self) -> None:
        self._context.runtime.remove(self.plan_name)
        if self._plan is None:  # made once: the model may be deleted while it serves
            self._plan = attempts.prepare(self._context, self._attempt)
        if not (hosts := attempts.launch(self._context, self._attempt, self._plan, self._control)):
            raise StoppedError
        self._attend(hosts[0])

    def _attend(self, host: Host) -> None:
        """Follow a container, and wait until it serves."""
        self._life = life = Life(self._attempt, host)
        try:
            self.client = wait_until_healthy(host, self._startup_timeout, self._control.stopped, life.has_ended)
        except UnhealthyError as error:
            raise UnhealthyError(f"{error}{life.describe_end()}") from error
        self._last_sign = time.monotonic()
        self._on_change()

    def _keep(self) -> None:
        """Start the container again each time that it ends or stops answering, with increasing delays."""
        delay, stopped = FIRST_RESTART_DELAY, self._control.stopped
        # Checked after each start, because `stop` ends a container that serves by then, and waits for this thread.
        while self._life is not None and not stopped.is_set():
            started = time.monotonic()
            reason = self._watch(self._life)
            if stopped.is_set():
                return
            if time.monotonic() - started > MAX_RESTART_DELAY:
                delay = FIRST_RESTART_DELAY
            self.note(f"the container {reason} and is started again in {delay:g} s.{self._life.describe_end()}")
            while not stopped.wait(delay) and not self._relaunch():
                delay = min(MAX_RESTART_DELAY, delay * 2)
            delay = min(MAX_RESTART_DELAY, delay * 2)

    def _watch(self, life: Life) -> str:
        """Wait until the container has ended, or end it because it does not answer; return which of the two."""
        while not life.wait(PING_INTERVAL):
            if self.client is not None and self.client.is_healthy():
                self._last_sign = time.monotonic()
            # A container that works on one request at a time cannot answer `/ping` meanwhile.
            patience = max(SILENCE_TIMEOUT, self._traffic.longest())
            if time.monotonic() - self._last_sign > patience and not self._control.stopped.is_set():
                self._close()
                self._end(life)
                return f"answered neither GET /ping with 200 nor a request for {patience:g} s"
        self._close()
        return "ended by itself"

    def _end(self, life: Life) -> None:
        """End a container that may ignore signals."""
        try:
            life.host.stop(SHUTDOWN_GRACE_PERIOD)
        except Exception:
            logger.exception("%s could not be stopped, and is removed", self.plan_name)
        if not life.wait(SHUTDOWN_GRACE_PERIOD):
            self._context.runtime.remove(self.plan_name)
            life.wait()

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

    def _close(self) -> None:
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
        most: float = float("inf"),
    ) -> Answer:
        """Send a request to the model, as `Client.request` does.

        Raises:
            NoAnswerError: also, with `was_sent` false, while the container does not serve.
            TooLargeError: the answer has more bytes than `most`.
        """
        with self._traffic.request(timeout):
            if (client := self.client) is None:
                raise NoAnswerError("the container does not serve now", was_sent=False)
            answer = client.request("POST", INVOCATIONS, body, headers, timeout=timeout, into=into, most=most)
            self._last_sign = time.monotonic()  # while it still counts as under way
        return answer

    def close(self) -> None:
        """Take no new requests; finish the present ones."""
        self._traffic.close()

    def is_closed(self) -> bool:
        return self._traffic.is_closed

    def is_busy(self) -> bool:
        return self._traffic.longest() > 0

    def abandon(self) -> None:
        """Make a waiting `start` raise StoppedError; call `stop` afterwards."""
        self._control.stop(StopReason.FINISHED)

    def stop(self, grace: float) -> None:
        """End the container, SIGTERM and SIGKILL after `grace` seconds, and remove all that is left of it."""
        self._control.stop(StopReason.FINISHED)
        if self._life is not None and self.client is not None:
            self._life.host.stop(grace)
        if self._keeper.is_alive():
            self._keeper.join()
        self._context.runtime.remove(self.plan_name)
        if self._life is not None:
            self._life.wait()
        self._close()
        discard(self._context.work_folder(self.plan_name))

    def note(self, sentence: str) -> None:
        """Write a sentence of the server to the container's log."""
        logger.info("%s: %s", self.plan_name, sentence)
        self._attempt.open_stream("").note(sentence)
