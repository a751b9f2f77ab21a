"""Containers that serve a model, for endpoints and batch transform. Source: facts §2.4, §2.5."""

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.local import instances
from orchestrator.local.jobs import group, models
from orchestrator.local.jobs.client import Client
from orchestrator.local.jobs.context import Context
from orchestrator.local.jobs.group import Control, Why
from orchestrator.local.jobs.job import LAYOUT
from orchestrator.local.logs import Stream
from orchestrator.local.runtimes.base import CannotRunError, Exit, Host, HostPlan, Input, Line, Plan

logger = logging.getLogger(__name__)

PORT = 8080
STARTUP_SECONDS = 240
"""What a container gets until `/ping` answers, unless its variant says otherwise."""
GRACE_SECONDS = 30.0
"""Between SIGTERM and SIGKILL."""
FIRST_PING, SLOWEST_PING = 0.1, 1.0
FIRST_RESTART, SLOWEST_RESTART = 1.0, 60.0
LAST_LINES = 5


class UnhealthyError(CannotRunError):
    """A container ended, or its `/ping` did not answer 200 in time."""


class StoppedError(Exception):
    """Nobody wants the container any more."""


class Switch(Control):
    """A control whose turning can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Event()

    def stop(self, why: Why) -> None:
        super().stop(why)
        self.changed.set()


def image(context: Context, model: Mapping[str, Any]) -> str:
    """The local name of a model's image."""
    return context.image(models.container(model)["Image"])


def host_plan(
    context: Context,
    model: Mapping[str, Any],
    name: str,
    folder: Path,
    data: Path,
    instance_type: str,
    environment: Mapping[str, str] | None = None,
) -> HostPlan:
    """A host that serves a model.

    Args:
        model: the request that made it.
        folder: a new one, for the host's own files.
        data: the model's files, as `models.fetch` makes them.
        environment: beside the model's own, and before it.
    """
    folder.mkdir(parents=True)
    access = {} if is_isolated(model) else context.access()
    return HostPlan(
        name=name,
        image=image(context, model),
        files=folder,
        inputs=(Input(str(LAYOUT.model), data),),
        arguments=("serve",),
        environment={
            **access,
            **models.container(model).get("Environment", {}),
            **(environment or {}),
        },
        limits=context.limits(instance_type),
        gpus=instances.has_gpus(instance_type),
        port=PORT,
    )


def is_isolated(model: Mapping[str, Any]) -> bool:
    return bool(model.get("EnableNetworkIsolation", False))


def wait_until_healthy(
    host: Host, seconds: float, stopping: threading.Event, ended: Callable[[], bool] = lambda: False
) -> Client:
    """Ask `/ping` until it answers 200: often at first, since most containers are quick.

    Args:
        stopping: set when nobody wants the answer any more.
        ended: whether the host has ended by itself.

    Raises:
        UnhealthyError: it has ended, or there was no 200 within `seconds`.
        StoppedError: `stopping` was set.
    """
    deadline, wait = time.monotonic() + seconds, FIRST_PING
    while time.monotonic() < deadline:
        if ended():
            raise UnhealthyError("It ended before that.")
        if (client := _answering(host)) is not None:
            return client
        if stopping.wait(wait):
            raise StoppedError
        wait = min(SLOWEST_PING, wait * 1.2)
    raise UnhealthyError(f"GET /ping did not answer 200 within {seconds:g} s.")


def _answering(host: Host) -> Client | None:
    address = host.address()
    if not address[0]:  # a container that has ended
        return None
    client = Client(address)
    if client.healthy():
        return client
    client.close()
    return None


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
        outcome = group.run([self.host], streams, Control(), deadline=None, on_line=self._on_line)
        self.exit = outcome.exits[self.host.name]

    def _on_line(self, line: Line) -> None:
        self._last.append(line.text.decode(errors="replace"))

    def has_ended(self) -> bool:
        return not self._follower.is_alive()

    def wait(self) -> None:
        """Block until the container has ended and its output is in the log."""
        self._follower.join()

    def story(self) -> str:
        """How it ended, if it did, and what it said last."""
        how = (
            f" Exit code: {self.exit.code}{f' ({self.exit.reason})' if self.exit.reason else ''}." if self.exit else ""
        )
        said = " | ".join(line for line in self._last if line.strip())
        return f"{how} Its last lines: {said}" if said else f"{how} It wrote no log."


class Replica:
    """A container that serves, and is started again when it ends by itself.

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
        self._attend(self._runtime.start(self._plan)[0])

    def _attend(self, host: Host) -> None:
        """Follow a container, and wait until it serves."""
        self._life = life = Life(host, self._stream)
        try:
            self.client = wait_until_healthy(host, self._startup_seconds, self._stopping, life.has_ended)
        except UnhealthyError as error:
            raise UnhealthyError(f"{error}{life.story()}") from error

    def _keep(self) -> None:
        delay = FIRST_RESTART
        # Asked again after each start: `stop` ends a container that serves by then, and waits for this thread.
        while self._life is not None and not self._stopping.is_set():
            began = time.monotonic()
            self._life.wait()
            self._close()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > SLOWEST_RESTART:
                delay = FIRST_RESTART
            self.note(f"the container ended by itself and is started again in {delay:g} s.{self._life.story()}")
            while not self._stopping.wait(delay) and not self._relaunched():
                delay = min(SLOWEST_RESTART, delay * 2)
            delay = min(SLOWEST_RESTART, delay * 2)

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
        shutil.rmtree(self._folder, ignore_errors=True)

    def note(self, sentence: str) -> None:
        """Tell the user something in the container's log."""
        logger.info("%s: %s", self.plan_name, sentence)
        self._stream.append(time.time(), f"[microjobs] {sentence}".encode())
