"""Replicas of serverless variants: a container that is started by a request, and stopped when it is idle."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import IO

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.hosts import SHUTDOWN_GRACE_PERIOD
from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.serverless import (
    MAX_BODY_BYTES,
    ServerlessSettings,
    make_not_ready_error,
    make_size_error,
    make_throttling_error,
)
from microjobs_orchestrator.local.resources.endpoints.streams import ResponseStream
from microjobs_orchestrator.local.resources.endpoints.traffic import Traffic
from microjobs_orchestrator.local.resources.models.client import Answer, NoAnswerError
from microjobs_orchestrator.local.resources.models.serving import StoppedError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host
from microjobs_orchestrator.local.tasks import call_in_thread

logger = logging.getLogger(__name__)


class ServerlessReplica:
    """Another replica, which runs from the first request until there has been no request for `idle_timeout`.

    `start` starts it, too: an endpoint whose container does not work fails at once, not at its first request. A thread
    starts and stops the replica afterwards.

    Args:
        make: returns a new replica. All of them have the same names.
        has_served: whether it served for an earlier server, so that `start` without hosts starts nothing.
        idle_timeout: seconds after the last request until the replica is stopped.
        on_change: called when the last request ends after `traffic.close`.
        on_restart: receives the seconds that a start took, for which requests waited.
    """

    def __init__(
        self,
        make: Callable[[], Replica],
        settings: ServerlessSettings,
        idle_timeout: float,
        on_change: Callable[[], None],
        on_restart: Callable[[float], None],
        *,
        has_served: bool,
    ) -> None:
        first = make()
        self.variant, self.instance_id, self.plan_name = first.variant, first.instance_id, first.plan_name
        self.traffic = Traffic(on_change)
        self._make = make
        self._on_restart = on_restart
        self._has_served = has_served
        self._settings = settings
        self._idle_timeout = idle_timeout
        self._changed = threading.Condition()
        self._running: Replica | None = None
        self._starting: Replica | None = None
        self._is_wanted = False
        """Whether the replica must be started."""
        self._failures = 0
        self._failure = ""
        """The reason of the last failed start."""
        self._requests = 0
        self._last_use = 0.0
        """The end of the last request, in seconds of the monotonic clock."""
        self._is_stopped = False
        self._keeper = threading.Thread(target=self._keep, name=f"serverless {self.plan_name}", daemon=True)

    def start(self, hosts: Sequence[Host] = ()) -> None:
        if hosts or not self._has_served:
            self._start(hosts)
        self._keeper.start()

    def configure(self, settings: ServerlessSettings) -> None:
        """Change the settings while the replica serves."""
        with self._changed:
            self._settings = settings
            self._is_wanted |= self._running is None and settings.provisioned_concurrency > 0
            self._changed.notify_all()

    def _start(self, hosts: Sequence[Host]) -> None:
        """Start the replica. If it cannot start, stop it and raise."""
        with self._changed:
            if self._is_stopped:
                raise StoppedError
            self._starting = starting = self._make()
        try:
            starting.start(hosts)
        except BaseException:
            self._starting = None
            starting.stop(SHUTDOWN_GRACE_PERIOD)
            raise
        with self._changed:
            self._running, self._starting = starting, None
            self._is_wanted = False
            self._last_use = time.monotonic()
            self._changed.notify_all()

    # --- the thread that starts and stops the replica ---

    def _keep(self) -> None:
        while True:
            with self._changed:
                while not (self._is_stopped or self._must_start() or self._get_idle_seconds() == 0.0):
                    self._changed.wait(self._get_idle_seconds())
                if self._is_stopped:
                    return
                idle, self._running = self._running, None
            if idle is None:
                self._restart()
            else:
                idle.note(f"the container is stopped after {self._idle_timeout:g} s without a request")
                idle.stop(SHUTDOWN_GRACE_PERIOD)

    def _must_start(self) -> bool:
        return self._running is None and self._is_wanted

    def _get_idle_seconds(self) -> float | None:
        """Return the seconds until the replica is idle; None if it does not run or must run."""
        if self._running is None or self._requests or self._settings.provisioned_concurrency:
            return None
        return max(0.0, self._last_use + self._idle_timeout - time.monotonic())

    def _restart(self) -> None:
        """Start the replica for waiting requests, which fail if it cannot start."""
        began = time.monotonic()
        try:
            self._start(())
        except StoppedError:
            return
        except Exception as error:
            if not isinstance(error, CannotRunError | ServiceError):
                logger.exception("%s could not be started", self.plan_name)
            with self._changed:
                self._is_wanted = False
                self._failures, self._failure = self._failures + 1, str(error)
                self._changed.notify_all()
            self.note(f"the container could not be started: {error}")
            return
        seconds = time.monotonic() - began
        self._on_restart(seconds)
        self.note(f"the container was started within {seconds:.1f} s")

    # --- requests ---

    def invoke(self, request: InferenceRequest, into: IO[bytes]) -> Answer:
        with self._request(request) as (replica, limited):
            return replica.invoke(limited, into)

    def stream(self, request: InferenceRequest) -> ResponseStream:
        with ExitStack() as stack:
            replica, limited = stack.enter_context(self._request(request))
            stream = replica.stream(limited)
            stream.call_on_close(stack.pop_all().close)
            return stream

    @contextmanager
    def _request(self, request: InferenceRequest) -> Iterator[tuple[Replica, InferenceRequest]]:
        """Yield the running replica, and the request with the remaining time."""
        deadline = time.monotonic() + request.timeout
        if isinstance(request.body, bytes) and len(request.body) > MAX_BODY_BYTES:
            raise make_size_error(self.variant)
        with self.traffic.request(request.timeout), self._count_request():
            # The replica is not stopped during a request, and a running one is found without the help of a thread.
            replica = self._running or call_in_thread(partial(self._wait_for_replica, deadline, request.timeout))
            request.timer.mark_sent()  # the start of the container is overhead, as on AWS
            timeout = max(0.001, deadline - time.monotonic())
            yield replica, replace(request, timeout=timeout, max_bytes=min(request.max_bytes, MAX_BODY_BYTES))

    @contextmanager
    def _count_request(self) -> Iterator[None]:
        with self._changed:
            if self._requests >= self._settings.max_concurrency:
                raise make_throttling_error(self.variant, self._settings.max_concurrency)
            self._requests += 1
        try:
            yield
        finally:
            with self._changed:
                self._requests -= 1
                self._last_use = time.monotonic()
                self._changed.notify_all()

    def _wait_for_replica(self, deadline: float, timeout: float) -> Replica:
        with self._changed:
            failures = self._failures
            if self._running is None:
                self._is_wanted = True
                self._changed.notify_all()
            while self._running is None:
                if self._is_stopped:
                    raise NoAnswerError("the container is being replaced", was_sent=False)
                if self._failures != failures:
                    raise NoAnswerError(f"the container could not be started: {self._failure}")
                if (seconds_left := deadline - time.monotonic()) <= 0:
                    raise make_not_ready_error(self.variant, timeout)
                self._changed.wait(seconds_left)
            return self._running

    # --- the end ---

    def abandon(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
            if self._starting is not None:
                self._starting.abandon()

    def stop(self, grace: float) -> None:
        self.abandon()
        if self._keeper.is_alive():
            self._keeper.join()
        if self._running is not None:
            self._running.stop(grace)

    def note(self, sentence: str) -> None:
        (self._running or self._make()).note(sentence)
