"""A container of an endpoint: followed, asked, watched, and started again when it ends or falls silent. Facts §2.4."""

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from microjobs_orchestrator.local.lifecycle import group
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.group import SHUTDOWN_GRACE_SECONDS, Control
from microjobs_orchestrator.local.logs import Stream
from microjobs_orchestrator.local.resources.models.client import Answer, Body, Client, NoAnswerError
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError, wait_until_healthy
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Host, Line, Plan
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

INVOCATIONS = "/invocations"
FIRST_RESTART, SLOWEST_RESTART = 1.0, 60.0
PING_EVERY = 5.0
SILENT_SECONDS = 60.0
"""Without a `/ping` of 200 and without an answer, a container is replaced: as long as it may take to answer."""
LAST_LINES = 5


class Life:
    """A container from its start to its end; its output goes into the log meanwhile."""

    def __init__(self, host: Host, stream: Stream) -> None:
        self.host = host
        self.exit: Exit | None = None
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._stream = stream
        self._follower = threading.Thread(target=self._follow, name=f"follow {host.name}", daemon=True)
        self._follower.start()

    def _follow(self) -> None:
        streams = {self.host.name: self._stream}
        outcome = group.run([self.host], streams, Control(), seconds=None, on_line=self._on_line)
        self.exit = outcome.exits[self.host.name]

    def _on_line(self, line: Line) -> None:
        self._last.append(line.text.decode(errors="replace"))

    def has_ended(self) -> bool:
        return not self._follower.is_alive()

    def wait(self, seconds: float | None = None) -> bool:
        """Block until the container has ended and its output is in the log, or it takes longer; whether it has."""
        self._follower.join(seconds)
        return self.has_ended()

    def story(self) -> str:
        """How it ended, if it did, and what it said last."""
        how = (
            f" Exit code: {self.exit.code}{f' ({self.exit.reason})' if self.exit.reason else ''}." if self.exit else ""
        )
        said = " | ".join(line for line in self._last if line.strip())
        return f"{how} Its last lines: {said}" if said else f"{how} It wrote no log."


class Traffic:
    """The requests that a container has under way. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._timeouts: Counter[float] = Counter()
        self.is_closed = False

    @contextlib.contextmanager
    def request(self, timeout: float) -> Iterator[None]:
        """One request, from its beginning to its end.

        Raises:
            NoAnswerError: there shall be no new ones.
        """
        with self._lock:
            if self.is_closed:
                raise NoAnswerError("the container takes no requests any more", was_sent=False)
            self._timeouts[timeout] += 1
        try:
            yield
        finally:
            with self._lock:
                self._timeouts[timeout] -= 1
                self._timeouts += Counter()  # forgets those of which there is none

    def close(self) -> None:
        """Take no new ones."""
        with self._lock:
            self.is_closed = True

    def longest(self) -> float:
        """What the most patient of those under way gives the container, in seconds; 0 if there is none."""
        with self._lock:
            return max(self._timeouts, default=0.0)


class Replica:
    """A container that serves, and is started again when it ends by itself or answers nothing any more.

    Args:
        lay_out: makes the plan, of one host, in a new folder.
        stream: where its output goes.
        startup_seconds: what it gets until `/ping` answers.
    """

    def __init__(
        self,
        context: Context,
        plan_name: str,
        lay_out: Callable[[Path], Plan],
        stream: Stream,
        startup_seconds: float,
    ) -> None:
        self.plan_name = plan_name
        self.client: Client | None = None
        """None while the container does not serve."""
        self._runtime = context.runtime
        self._folder = context.work_folder(plan_name)
        self._context = context
        self._lay_out = lay_out
        self._plan: Plan | None = None
        self._stream = stream
        self._startup_seconds = startup_seconds
        self._stopping = threading.Event()
        self._traffic = Traffic()
        self._last_sign = 0.0
        self._life: Life | None = None
        self._keeper = threading.Thread(target=self._keep, name=plan_name, daemon=True)

    def start(self, host: Host | None = None) -> None:
        """Start the container, or take one up that runs; returns when it serves.

        Raises:
            CannotRunError: it cannot start, or is not healthy (`UnhealthyError`).
            ServiceError: the model's data is gone.
            StoppedError: `abandon` was called.
        """
        if host is None or not self._taken_up(host):
            self._launch()
        self._keeper.start()

    def _taken_up(self, host: Host) -> bool:
        try:
            self._attend(host)
        except UnhealthyError as error:
            self.note(f"the container of the server before does not serve, and is started again: {error}")
            return False
        return True

    def _launch(self) -> None:
        self._runtime.remove(self.plan_name)
        if self._plan is None:
            self._plan = self._lay_out(self._context.new_work_folder(self.plan_name))
        if self._stopping.is_set():
            raise StoppedError
        self._stream.begin()
        self._attend(self._runtime.start(self._plan)[0])

    def _attend(self, host: Host) -> None:
        """Follow a container, and wait until it serves."""
        self._life = life = Life(host, self._stream)
        try:
            self.client = wait_until_healthy(host, self._startup_seconds, self._stopping, life.has_ended)
        except UnhealthyError as error:
            raise UnhealthyError(f"{error}{life.story()}") from error
        self._last_sign = time.monotonic()

    def _keep(self) -> None:
        delay = FIRST_RESTART
        # Asked again after each start: `stop` ends a container that serves by then, and waits for this thread.
        while self._life is not None and not self._stopping.is_set():
            began = time.monotonic()
            why = self._watch(self._life)
            if self._stopping.is_set():
                return
            if time.monotonic() - began > SLOWEST_RESTART:
                delay = FIRST_RESTART
            self.note(f"the container {why} and is started again in {delay:g} s.{self._life.story()}")
            while not self._stopping.wait(delay) and not self._relaunched():
                delay = min(SLOWEST_RESTART, delay * 2)
            delay = min(SLOWEST_RESTART, delay * 2)

    def _watch(self, life: Life) -> str:
        """Wait until the container has ended, or end it since it is silent; why it does not serve any more."""
        while not life.wait(PING_EVERY):
            if self.client is not None and self.client.healthy():
                self._last_sign = time.monotonic()
            # A container that works on one request at a time cannot answer `/ping` meanwhile.
            patience = max(SILENT_SECONDS, self._traffic.longest())
            if time.monotonic() - self._last_sign > patience and not self._stopping.is_set():
                self._close()
                self._end(life)
                return f"answered neither GET /ping with 200 nor a request for {patience:g} s"
        self._close()
        return "ended by itself"

    def _end(self, life: Life) -> None:
        """End a container that may not even take a signal."""
        try:
            life.host.stop(SHUTDOWN_GRACE_SECONDS)
        except Exception:
            logger.exception("%s could not be stopped, and is removed", self.plan_name)
        if not life.wait(SHUTDOWN_GRACE_SECONDS):
            self._runtime.remove(self.plan_name)
            life.wait()

    def _relaunched(self) -> bool:
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
        """Ask the model; as `Client.request`.

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
        """Take no new requests; those under way go on."""
        self._traffic.close()

    def is_closed(self) -> bool:
        return self._traffic.is_closed

    def is_busy(self) -> bool:
        return self._traffic.longest() > 0

    def abandon(self) -> None:
        """Have a `start` that still waits end at once; call `stop` then."""
        self._stopping.set()

    def stop(self, grace: float) -> None:
        """End the container, SIGTERM and SIGKILL after `grace` seconds, and remove all that is left of it."""
        self._stopping.set()
        if self._life is not None and self.client is not None:
            self._life.host.stop(grace)
        if self._keeper.is_alive():
            self._keeper.join()
        self._runtime.remove(self.plan_name)
        if self._life is not None:
            self._life.wait()
        self._close()
        discard(self._folder)

    def note(self, sentence: str) -> None:
        """Tell the user something in the container's log."""
        logger.info("%s: %s", self.plan_name, sentence)
        self._stream.note(sentence)
