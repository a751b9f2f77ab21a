"""What runs now: one thread a job, found by the job's name, and taken up again after a restart."""

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.control import Change, Control, StopReason
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.state import Record
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

END_TIMEOUT = 30.0
"""What jobs get to end in when the server ends, or when their description says already that they have."""

REASON_LIMIT = 1024
"""Characters of a FailureReason."""

UNFINISHED = ("InProgress", "Stopping", "Creating", "Updating", "Deleting", "InService")
"""Statuses, of any kind, in which something should be running."""


class Runnable(Protocol):
    """What the registry runs: a job of any kind, or an endpoint."""

    control: Control

    @property
    def plan_name(self) -> str: ...

    def run(self) -> None: ...

    def recover(self, hosts: Sequence[Host]) -> None:
        """Run what an earlier server left, with the hosts of it that are still there."""
        ...


Maker = Callable[[Context, Record], Runnable]


class Registry:
    """Runs jobs, each in a thread of its own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._running: dict[str, tuple[Runnable, threading.Thread]] = {}
        self._is_closing = False
        self._lock = threading.Lock()

    def start(self, job: Runnable, steps: Callable[[], None] | None = None) -> None:
        """Run a job, from its beginning unless other steps are given."""
        thread = threading.Thread(target=self._run, args=(job, steps or job.run), name=job.plan_name, daemon=True)
        kind, _, name = job.plan_name.partition("/")
        with self._lock:
            self._running[job.plan_name] = (job, thread)
            record = self._context.state.get(kind, name)
            if record is not None and record.status == "Stopping":  # asked for before there was a job to tell
                job.control.stop(StopReason.REQUEST)
            if self._is_closing:  # such as the next training job of a tuning job
                job.control.stop(StopReason.SHUTDOWN)
            thread.start()

    def _run(self, job: Runnable, steps: Callable[[], None]) -> None:
        try:
            steps()
        except Exception as error:
            logger.exception("%s ended badly", job.plan_name)
            self._fail(job.plan_name, error)
        finally:
            with self._lock:
                entry = self._running.get(job.plan_name)
                if entry is not None and entry[0] is job:  # not an endpoint that was made again
                    del self._running[job.plan_name]
            try:
                self._notify_owner(job.plan_name)
            except Exception:
                logger.exception("the owner of %s does not know that it has ended", job.plan_name)

    def _notify_owner(self, plan_name: str) -> None:
        """Tell the running owner of a resource that the resource has ended."""
        kind, _, name = plan_name.partition("/")
        record = self._context.state.get(kind, name)
        if record is None or record.owner is None:
            return
        if (owner := self.find(f"{record.owner.kind}/{record.owner.name}")) is not None:
            owner.control.send(Change.RESOURCE_ENDED)

    def find(self, plan_name: str) -> Runnable | None:
        """The running job of a name such as `training-job/my-job`."""
        with self._lock:
            entry = self._running.get(plan_name)
        return entry[0] if entry else None

    def stop(self, plan_name: str) -> bool:
        """Ask a job to stop; False if it does not run."""
        job = self.find(plan_name)
        if job is not None:
            job.control.stop(StopReason.REQUEST)
        return job is not None

    def wait(self, plan_name: str) -> bool:
        """Wait until nothing is left of a job whose description says that it is over; False if that takes too long."""
        with self._lock:
            entry = self._running.get(plan_name)
        if entry is not None:
            entry[1].join(END_TIMEOUT)
        return entry is None or not entry[1].is_alive()

    def recover(self, makers: Mapping[str, Maker]) -> None:
        """Take up what an earlier server left: attend to hosts that are still there, end jobs that have none.

        Args:
            makers: by kind, what makes a runnable of a record.
        """
        left = dict(self._context.runtime.running())
        self._remove_scraps(left)
        for kind, maker in makers.items():
            for record in self._context.state.unfinished(kind, UNFINISHED):
                try:
                    self._take_up(maker(self._context, record), left)
                except Exception as error:
                    logger.exception("%s/%s cannot be taken up", kind, record.name)
                    self._fail(f"{kind}/{record.name}", error)
        for plan_name in left:
            logger.info("removing what is left of %s", plan_name)
            self._remove(plan_name)
            discard(self._context.work_folder(plan_name))

    def _take_up(self, job: Runnable, left: dict[str, Sequence[Host]]) -> None:
        # An endpoint has a plan for each variant, below its own name.
        mine = [name for name in left if f"{name}/".startswith(f"{job.plan_name}/")]
        hosts = [host for name in mine for host in left.pop(name)]
        logger.info("resuming %s with %d hosts", job.plan_name, len(hosts))
        self.start(job, functools.partial(job.recover, hosts))

    def _fail(self, plan_name: str, error: Exception) -> None:
        """Describe a failure that a job could not describe itself, so that nobody waits for its end."""
        kind, _, name = plan_name.partition("/")
        noun = "".join(word.title() for word in kind.split("-"))
        reason = f"InternalServerError: {type(error).__name__}: {error}; see the server's log"[:REASON_LIMIT]
        changes = {f"{noun}Status": "Failed", "FailureReason": reason}
        try:
            self._context.state.update(kind, name, changes, "Failed", only_if=UNFINISHED)
        except Exception:
            logger.exception("%s could not be described as failed", plan_name)

    def _remove(self, plan_name: str) -> None:
        """Remove what is left of a plan; what stays is logged, and all else goes on."""
        try:
            self._context.runtime.remove(plan_name)
        except Exception:
            logger.exception("%s could not be removed", plan_name)

    def _remove_scraps(self, left: dict[str, Sequence[Host]]) -> None:
        """Remove what nobody can go on with: plans without hosts, and work folders without a plan."""
        for name in [name for name, hosts in left.items() if not hosts]:
            logger.info("removing what was being started or removed of %s", name)
            self._remove(name)
            del left[name]
        used = {self._context.work_folder(name) for name in left}
        for folder in self._context.home.work.glob("*-*"):
            if folder not in used:
                discard(folder)

    def shut_down(self) -> None:
        """End all jobs, and wait for them."""
        with self._lock:
            self._is_closing = True
            running = list(self._running.values())
        for job, _ in running:
            job.control.stop(StopReason.SHUTDOWN)
        deadline = time.monotonic() + END_TIMEOUT
        for job, thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                logger.warning("%s did not end in time", job.plan_name)
                for name in [job.plan_name, *self._context.runtime.running()]:  # an endpoint's are below its own
                    if f"{name}/".startswith(f"{job.plan_name}/"):
                        self._context.runtime.remove(name)
