"""The running hosts of a replica. Threads write the output of the hosts to the log until the hosts end."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from microjobs_orchestrator.local.lifecycle.attempt import Attempt, Outcome
from microjobs_orchestrator.local.lifecycle.events import EventQueue
from microjobs_orchestrator.local.lifecycle.hosts import HostGroup
from microjobs_orchestrator.local.runtimes.base import Host, Line

LAST_LINE_COUNT = 5
"""The number of the last lines of a host's output that messages contain."""


class RunningHosts:
    """All hosts of a replica, from their start until the last of them has ended."""

    def __init__(self, attempt: Attempt, hosts: Sequence[Host]) -> None:
        self.hosts = hosts
        self._one_has_ended = threading.Event()
        self.first_ended_index: int | None = None
        """The index of the host that has ended first; None if all hosts run."""
        self._running_hosts = [
            _RunningHost(attempt, host, partial(self._note_end, index)) for index, host in enumerate(hosts)
        ]

    def _note_end(self, index: int) -> None:
        if self.first_ended_index is None:
            self.first_ended_index = index
        self._one_has_ended.set()

    def wait_for_first_end(self, timeout: float) -> bool:
        """Return whether one of the hosts ends within `timeout` seconds."""
        return self._one_has_ended.wait(timeout)

    def wait_for_all_ends(self, timeout: float | None = None) -> bool:
        """Return whether all hosts end within `timeout` seconds. If so, all their output is in the log."""
        deadline = None if timeout is None else time.monotonic() + timeout
        return all(
            running_host.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            for running_host in self._running_hosts
        )

    def stop(self, grace: float) -> None:
        """Send SIGTERM to all hosts, and SIGKILL to the hosts that still run after `grace` seconds."""
        with ThreadPoolExecutor(len(self._running_hosts)) as pool:
            list(pool.map(lambda running_host: running_host.host.stop(grace), self._running_hosts))

    def describe_end(self, index: int) -> str:
        """Return sentences about a host: its exit code if it has ended, and the last lines of its output."""
        return self._running_hosts[index].describe_end()


class _RunningHost:
    def __init__(self, attempt: Attempt, host: Host, on_end: Callable[[], object]) -> None:
        self.host = host
        self._on_end = on_end
        self._outcome = Outcome()
        self._last_lines: deque[str] = deque(maxlen=LAST_LINE_COUNT)
        self._attempt = replace(attempt, on_line=self._add_line)
        self._follower = threading.Thread(target=self._follow, name=f"follow {host.name}", daemon=True)
        self._follower.start()

    def _follow(self) -> None:
        try:
            self._outcome = HostGroup(self._attempt, [self.host], EventQueue()).run()
        finally:
            self._on_end()

    def _add_line(self, line: Line) -> None:
        self._last_lines.append(line.text.decode(errors="replace"))

    def wait(self, timeout: float | None) -> bool:
        self._follower.join(timeout)
        return not self._follower.is_alive()

    def describe_end(self) -> str:
        text = ""
        for host_exit in self._outcome.exits.values():
            text = f" Exit code: {host_exit.code}{f' ({host_exit.reason})' if host_exit.reason else ''}."
        lines = " | ".join(line for line in self._last_lines if line.strip())
        return f"{text} Its last lines: {lines}" if lines else f"{text} It wrote no log."
