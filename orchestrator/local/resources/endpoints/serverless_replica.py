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
from microjobs_orchestrator.local.resources.models.client import NoResponseError, ResponseHead
from microjobs_orchestrator.local.resources.models.serving import StoppedError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host
from microjobs_orchestrator.local.tasks import call_in_thread

logger = logging.getLogger(__name__)


class ServerlessReplica:
    """Runs another replica, the *inner replica*: starts it for a request, and stops it when no request has been in
    progress for `idle_timeout`. With ProvisionedConcurrency, the inner replica is not stopped.

    The method `start` also starts the inner replica: an endpoint whose container does not work fails when it is
    created, not at its first request. Afterwards, a thread starts and stops the inner replica.

    Args:
        make_inner_replica: returns a new inner replica. All inner replicas have the same names.
        was_in_service: whether the variant was in service before the server restarted. Then `start` without hosts
            starts no inner replica.
        idle_timeout: seconds after the last request until the inner replica is stopped.
        on_change: called when the last request ends after `traffic.close`.
        on_restart: called each time that the thread has started the inner replica, with the seconds that this took.
    """

    def __init__(
        self,
        make_inner_replica: Callable[[], Replica],
        settings: ServerlessSettings,
        idle_timeout: float,
        on_change: Callable[[], None],
        on_restart: Callable[[float], None],
        *,
        was_in_service: bool,
    ) -> None:
        first_replica = make_inner_replica()
        self.variant, self.instance_id, self.plan_name = (
            first_replica.variant,
            first_replica.instance_id,
            first_replica.plan_name,
        )
        self.traffic = Traffic(on_change)
        self.is_serving = True  # an idle replica can receive requests: the first one starts it
        self._make_inner_replica = make_inner_replica
        self._on_restart = on_restart
        self._was_in_service = was_in_service
        self._settings = settings
        self._idle_timeout = idle_timeout
        self._change_condition = threading.Condition()
        self._running_replica: Replica | None = None
        self._starting_replica: Replica | None = None
        self._is_wanted = False
        """Whether the inner replica must be started."""
        self._failure_count = 0
        self._last_failure = ""
        """The reason of the last failed start."""
        self._request_count = 0
        self._last_use = 0.0
        """The end of the last request, in seconds of the monotonic clock."""
        self._is_stopped = False
        self._control_thread = threading.Thread(
            target=self._control_replica, name=f"serverless {self.plan_name}", daemon=True
        )

    def start(self, hosts: Sequence[Host] = ()) -> None:
        if hosts or not self._was_in_service:
            self._start(hosts)
        self._control_thread.start()

    def configure(self, settings: ServerlessSettings) -> None:
        """Change the settings while the replica serves."""
        with self._change_condition:
            self._settings = settings
            self._is_wanted |= self._running_replica is None and settings.provisioned_concurrency > 0
            self._change_condition.notify_all()

    def _start(self, hosts: Sequence[Host]) -> None:
        """Start an inner replica. If it cannot start, stop it, and raise the reason."""
        with self._change_condition:
            if self._is_stopped:
                raise StoppedError
            self._starting_replica = new_replica = self._make_inner_replica()
        try:
            new_replica.start(hosts)
        except BaseException:
            self._starting_replica = None
            new_replica.stop(SHUTDOWN_GRACE_PERIOD)
            raise
        with self._change_condition:
            self._running_replica, self._starting_replica = new_replica, None
            self._is_wanted = False
            self._last_use = time.monotonic()
            self._change_condition.notify_all()

    # --- the thread that starts and stops inner replicas ---

    def _control_replica(self) -> None:
        """Start the inner replica when it is wanted, and stop it when it is idle, until `stop` is called."""
        while True:
            with self._change_condition:
                while not (self._is_stopped or self._must_start() or self._get_seconds_until_idle() == 0.0):
                    self._change_condition.wait(self._get_seconds_until_idle())
                if self._is_stopped:
                    return
                idle_replica, self._running_replica = self._running_replica, None
            if idle_replica is None:
                self._restart()
            else:
                idle_replica.note(f"the container is stopped after {self._idle_timeout:g} s without a request")
                idle_replica.stop(SHUTDOWN_GRACE_PERIOD)

    def _must_start(self) -> bool:
        return self._running_replica is None and self._is_wanted

    def _get_seconds_until_idle(self) -> float | None:
        """Return the seconds until the inner replica is idle; None if there is none, or if it must not be stopped."""
        if self._running_replica is None or self._request_count or self._settings.provisioned_concurrency:
            return None
        return max(0.0, self._last_use + self._idle_timeout - time.monotonic())

    def _restart(self) -> None:
        """Start an inner replica. If it cannot start, waiting requests fail."""
        start_time = time.monotonic()
        try:
            self._start(())
        except StoppedError:
            return
        except Exception as error:
            if not isinstance(error, CannotRunError | ServiceError):
                logger.exception("%s could not be started", self.plan_name)
            with self._change_condition:
                self._is_wanted = False
                self._failure_count, self._last_failure = self._failure_count + 1, str(error)
                self._change_condition.notify_all()
            self.note(f"the container could not be started: {error}")
            return
        seconds = time.monotonic() - start_time
        self._on_restart(seconds)
        self.note(f"the container was started within {seconds:.1f} s")

    # --- requests ---

    def invoke(self, request: InferenceRequest, into: IO[bytes]) -> ResponseHead:
        with self._admit_request(request) as (replica, limited_request):
            return replica.invoke(limited_request, into)

    def stream(self, request: InferenceRequest) -> ResponseStream:
        with ExitStack() as stack:
            replica, limited_request = stack.enter_context(self._admit_request(request))
            stream = replica.stream(limited_request)
            stream.call_on_close(stack.pop_all().close)
            return stream

    @contextmanager
    def _admit_request(self, request: InferenceRequest) -> Iterator[tuple[Replica, InferenceRequest]]:
        """Yield the inner replica, and the request with the remaining time."""
        deadline = time.monotonic() + request.timeout
        if isinstance(request.body, bytes) and len(request.body) > MAX_BODY_BYTES:
            raise make_size_error(self.variant)
        with self.traffic.count_request(request.timeout), self._count_request():
            # The inner replica is not stopped while a request is counted, so the request can use it
            # immediately.
            # If it is not running, the request waits for the thread that starts it.
            replica = self._running_replica or call_in_thread(
                partial(self._wait_for_replica, deadline, request.timeout)
            )
            request.timer.mark_sent()  # the time for the container's start is a part of the overhead, as on AWS
            timeout = max(0.001, deadline - time.monotonic())
            yield replica, replace(request, timeout=timeout, max_bytes=min(request.max_bytes, MAX_BODY_BYTES))

    @contextmanager
    def _count_request(self) -> Iterator[None]:
        """Count a request during the block. Raise ServiceError ThrottlingException if MaxConcurrency is reached."""
        with self._change_condition:
            if self._request_count >= self._settings.max_concurrency:
                raise make_throttling_error(self.variant, self._settings.max_concurrency)
            self._request_count += 1
        try:
            yield
        finally:
            with self._change_condition:
                self._request_count -= 1
                self._last_use = time.monotonic()
                self._change_condition.notify_all()

    def _wait_for_replica(self, deadline: float, timeout: float) -> Replica:
        """Let the thread start the inner replica, and wait for it.

        Raise NoResponseError if it cannot start, or if this replica is stopped. Raise ServiceError
        ModelNotReadyException after the deadline.
        """
        with self._change_condition:
            earlier_failure_count = self._failure_count
            if self._running_replica is None:
                self._is_wanted = True
                self._change_condition.notify_all()
            while self._running_replica is None:
                if self._is_stopped:
                    raise NoResponseError("the container is being replaced", was_sent=False)
                if self._failure_count != earlier_failure_count:
                    raise NoResponseError(f"the container could not be started: {self._last_failure}")
                if (seconds_left := deadline - time.monotonic()) <= 0:
                    raise make_not_ready_error(self.variant, timeout)
                self._change_condition.wait(seconds_left)
            return self._running_replica

    # --- the end ---

    def abandon(self) -> None:
        with self._change_condition:
            self._is_stopped = True
            self._change_condition.notify_all()
            if self._starting_replica is not None:
                self._starting_replica.abandon()

    def stop(self, grace: float) -> None:
        self.abandon()
        if self._control_thread.is_alive():
            self._control_thread.join()
        if self._running_replica is not None:
            self._running_replica.stop(grace)

    def note(self, sentence: str) -> None:
        # A replica that was not started can also write to the log.
        (self._running_replica or self._make_inner_replica()).note(sentence)
