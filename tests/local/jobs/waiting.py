"""A runtime whose hosts wait until a test ends them. Waiting hosts take no processor time."""

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from microjobs_orchestrator.local.lifecycle.attempt import Attempt, Outcome
from microjobs_orchestrator.local.lifecycle.events import EventQueue
from microjobs_orchestrator.local.lifecycle.hosts import HostGroup
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.runtimes.base import Exit, Host, Image, Line, Plan


class WaitingHost:
    """A host that writes lines and ends only when its methods are called. Until then, it takes no processor time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._exits: queue.SimpleQueue[Exit] = queue.SimpleQueue()
        self.has_ended = False
        self.graces: list[float] = []
        """The grace period of each call of `stop`, in seconds."""

    def write(self, text: str) -> None:
        self._lines.put(text.encode())

    def end(self, code: int = 0) -> None:
        if not self.has_ended:
            self.has_ended = True
            self._lines.put(None)
            self._exits.put(Exit(code))

    def lines(self) -> Iterator[Line]:
        while (text := self._lines.get()) is not None:
            yield Line(time.time(), text)

    def wait(self) -> Exit:
        return self._exits.get()

    def stop(self, grace: float) -> None:
        self.graces.append(grace)
        self.end()

    def copy(self, path: str, target: Path) -> None:
        """Return None: the host has no files."""


class WaitingRuntime:
    name = "waiting"
    machine_address = "127.0.0.1"
    machine_address_exists_only_while_hosts_run = False

    def __init__(self) -> None:
        self.hosts: dict[str, WaitingHost] = {}

    def forward(self, port: int) -> None:
        """Return None: this runtime forwards no ports."""

    def prepare(self, image: str, stopped: threading.Event | None = None) -> None:
        """Do nothing: every image is available."""

    def images(self) -> Sequence[Image]:
        return []

    def start(self, plan: Plan) -> Sequence[Host]:
        self.hosts[plan.name] = host = WaitingHost(plan.hosts[0].name)
        return [host]  # type: ignore[list-item]

    def find_hosts(self) -> Mapping[str, Sequence[Host]]:
        return {name: [host] for name, host in self.hosts.items()}  # type: ignore[list-item]

    def remove(self, plan_name: str) -> None:
        if (host := self.hosts.pop(plan_name, None)) is not None:
            host.end(137)

    def cancel_installations(self) -> None:
        """Do nothing: nothing is installed."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def run_hosts(folder: Path, events: EventQueue, *hosts: Any, timeout: float | None = None) -> Outcome:
    """Run hosts until they end; stop them after `timeout` seconds. Their log streams are files in a folder."""

    def open_stream(name: str) -> LogStream:
        (folder / name).touch()
        return LogStream(folder / name)

    attempt = Attempt("plan", "image", make_plan=cast("Any", None), open_stream=open_stream)
    return HostGroup(attempt, hosts, events).run(timeout)
