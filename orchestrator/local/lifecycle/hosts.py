"""The hosts of one attempt: their output, their exits, and their common stop."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext

from microjobs_orchestrator.local.lifecycle.attempt import Attempt, Outcome
from microjobs_orchestrator.local.lifecycle.events import Event, EventQueue, HostExit, Interruption, StopReason
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.runtimes.base import Host, Line

logger = logging.getLogger(__name__)

GRACE_PERIOD = 120.0
"""Seconds between SIGTERM and SIGKILL, as on SageMaker:
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html"""
SHUTDOWN_GRACE_PERIOD = 10.0
"""Grace period when the server shuts down. It is shorter, because a user waits for the shutdown."""
FINISHED_GRACE_PERIOD = 30.0
"""Grace period of containers that serve requests and are no longer needed."""
STOP_RETRY_DELAY = 1.0
"""Seconds before the next attempt to stop a host, if the engine failed to stop it."""
LINE_TIMEOUT = 30.0
"""Seconds that the next line may take to arrive after the end of its host."""

SHORT_GRACE_PERIODS = {StopReason.SHUTDOWN: SHUTDOWN_GRACE_PERIOD, StopReason.FINISHED: FINISHED_GRACE_PERIOD}
"""The grace periods of the reasons for which hosts do not get the whole GRACE_PERIOD."""


class HostGroup:
    """The running hosts of one attempt. Output that is already in a log stream is not written again."""

    def __init__(self, attempt: Attempt, hosts: Sequence[Host], events: EventQueue) -> None:
        self._attempt = attempt
        self._hosts = hosts
        self._events = events
        self._streams = {host.name: attempt.open_stream(host.name) for host in hosts}
        self._outcome = Outcome(hosts)

    def run(self, timeout: float | None = None) -> Outcome:
        """Write the hosts' output to their streams until all hosts have ended; stop them after `timeout` seconds."""
        meter = self._attempt.meter
        with meter.measure(self._hosts) if meter else nullcontext():
            return self._run(timeout)

    def _run(self, timeout: float | None) -> Outcome:
        followers = [_start_thread(self._follow, host) for host in self._hosts]
        for host in self._hosts:
            _start_thread(self._report_exit, host)
        deadline = None if timeout is None else time.monotonic() + timeout
        while len(self._outcome.exits) < len(self._hosts):
            events = self._events.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            for event in events:
                self._handle(event)
            if not events:
                deadline = None
                self._events.stop(StopReason.TIMEOUT)
        for host, follower in zip(self._hosts, followers, strict=True):
            _wait_for_lines(follower, self._streams[host.name])
        return self._outcome

    def _follow(self, host: Host) -> None:
        stream = self._streams[host.name]
        with stream.writer() as write:
            # Old lines are skipped by count: times repeat within a millisecond, and decrease when the clock is set.
            new_lines = itertools.islice(host.lines(), stream.count_host_lines(), None)
            for line in select_final_parts(_write_each(new_lines, write)):
                self._attempt.on_line(line)

    def _report_exit(self, host: Host) -> None:
        self._events.send(HostExit(host.name, host.wait()))

    def _handle(self, event: Event) -> None:
        if isinstance(event, StopReason):
            self._stop(SHORT_GRACE_PERIODS.get(event, GRACE_PERIOD))
        elif isinstance(event, Interruption):
            self._interrupt(event)
        elif isinstance(event, HostExit):
            self._add_exit(event)

    def _interrupt(self, interruption: Interruption) -> None:
        if self._is_undisturbed():
            self._outcome.interruption = interruption
            self._attempt.on_interruption()
            self._stop(interruption.notice_seconds)

    def _add_exit(self, event: HostExit) -> None:
        self._outcome.exits[event.name] = event.exit
        if event.exit.code != 0 and self._is_undisturbed():
            self._outcome.first_failed_host = event.name
            self._stop(GRACE_PERIOD)

    def _is_undisturbed(self) -> bool:
        """Return whether nothing has caused a stop of the hosts: no stop request, no failed host, no interruption."""
        outcome = self._outcome
        return self._events.stop_reason is None and outcome.first_failed_host is None and outcome.interruption is None

    def _stop(self, grace: float) -> None:
        for host in self._hosts:
            _start_thread(self._stop_host, host, grace)

    def _stop_host(self, host: Host, grace: float) -> None:
        """Stop a host; retry if the engine fails, because callers request the stop only once."""
        while host.name not in self._outcome.exits:
            try:
                host.stop(grace)
                return
            except Exception:
                logger.exception("could not stop %s; the next attempt is in %g s", host.name, STOP_RETRY_DELAY)
                time.sleep(STOP_RETRY_DELAY)


def _write_each(lines: Iterable[Line], write: Callable[[Line], None]) -> Iterator[Line]:
    for line in lines:
        write(line)
        yield line


def select_final_parts(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield one `Line` per line of output.

    If a line was split after carriage returns, yield only its last part. If the last part is blank, yield the part
    before it instead.
    """
    part: Line | None = None
    for line in lines:
        if not line.is_whole:
            part = line
            continue
        yield line if part is None or line.text.strip() else part
        part = None
    if part is not None:
        yield part


def _wait_for_lines(follower: threading.Thread, stream: LogStream) -> None:
    """Wait for the last lines of a host that has ended, as long as new lines arrive."""
    size_before = -1
    while follower.is_alive() and stream.size() > size_before:
        size_before = stream.size()
        follower.join(LINE_TIMEOUT)
    if follower.is_alive():
        logger.warning(
            "%s: no lines arrived for %g s after the host ended; the log may be incomplete", stream.path, LINE_TIMEOUT
        )


def _start_thread(target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=_log_errors, args=(target, *arguments), daemon=True)
    thread.start()
    return thread


def _log_errors(target: Callable[..., None], *arguments: object) -> None:
    try:
        target(*arguments)
    except Exception:
        logger.exception("a thread of a job failed")
