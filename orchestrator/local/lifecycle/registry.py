"""The running resources, such as jobs and endpoints: one thread per resource. The plan name of a resource, such as
`training-job/my-job`, identifies its thread. The registry recovers the resources after a restart."""

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from microjobs_orchestrator.local.kinds import Kind, find_kind
from microjobs_orchestrator.local.lifecycle.attempt import remove_plan
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import Change, EventQueue, StopReason
from microjobs_orchestrator.local.lifecycle.job import INTERNAL_ERROR, MAX_REASON_CHARACTERS
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.state import Record
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

END_TIMEOUT = 30.0
"""Seconds that a job's thread may take to end: when the server shuts down, or after the job has a final status."""


class Runnable(Protocol):
    """A resource that needs a thread: a job, an endpoint, an inference component, a pipeline execution or an MLflow
    server. The module calls all of them jobs."""

    events: EventQueue

    @property
    def plan_name(self) -> str:
        """The kind and the name, such as `training-job/my-job`."""

    def run(self) -> None: ...

    def recover(self, hosts: Sequence[Host]) -> None:
        """Resume a resource that ran in an earlier server, with its hosts that still exist."""


RunnableMaker = Callable[[Context, Record], Runnable]
"""A function that returns the `Runnable` of a record."""


class Registry:
    """Runs each job in a thread of its own. Methods may be called from any thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._running: dict[str, tuple[Runnable, threading.Thread]] = {}
        """The running jobs with their threads, by plan name."""
        self._is_closing = False
        self._lock = threading.Lock()
        context.state.on_status_change = self._notify_owner

    def start(self, job: Runnable, target: Callable[[], None] | None = None) -> None:
        """Call `target`, by default `job.run`, in a new thread."""
        thread = threading.Thread(target=self._run, args=(job, target or job.run), name=job.plan_name, daemon=True)
        with self._lock:
            self._running[job.plan_name] = (job, thread)
            record = self._find_record(job.plan_name)
            if record is not None and record.status == "Stopping":  # a client has requested the stop before this call
                job.events.stop(StopReason.REQUEST)
            if self._is_closing:  # a tuning job may start its next trial while the server closes
                job.events.stop(StopReason.SHUTDOWN)
            thread.start()

    def _run(self, job: Runnable, target: Callable[[], None]) -> None:
        try:
            target()
        except Exception as error:
            logger.exception("%s failed, and did not store its failure in its description", job.plan_name)
            self._fail(job.plan_name, error)
        finally:
            with self._lock:
                entry = self._running.get(job.plan_name)
                if entry is not None and entry[0] is job:  # a new endpoint may have the same name
                    del self._running[job.plan_name]
            try:
                if record := self._find_record(job.plan_name):
                    self._notify_owner(record)
            except Exception:
                logger.exception("could not notify the owner of %s", job.plan_name)

    def _notify_owner(self, record: Record) -> None:
        """Tell the owner of a resource, if the owner runs, that the resource's status changed or its thread ended.

        The state calls this method in a transaction, before the hosts of an ended job are removed. The method must not
        wait for the lock, because the thread that holds the lock may wait for the state.
        """
        entry = self._running.get(f"{record.owner.kind}/{record.owner.name}") if record.owner else None
        if entry is not None:
            entry[0].events.send(Change.OWNED_RESOURCE_CHANGED)

    def _find_record(self, plan_name: str) -> Record | None:
        kind, _, name = plan_name.partition("/")
        return self._context.state.get(kind, name)

    def find(self, plan_name: str) -> Runnable | None:
        with self._lock:
            entry = self._running.get(plan_name)
        return entry[0] if entry else None

    def stop(self, plan_name: str) -> bool:
        """Request the stop of a job; return whether it is running."""
        job = self.find(plan_name)
        if job is not None:
            job.events.stop(StopReason.REQUEST)
        return job is not None

    def wait_for_end(self, plan_name: str) -> bool:
        """Wait until the thread of a job with a final status has removed its hosts; return False on timeout."""
        with self._lock:
            entry = self._running.get(plan_name)
        if entry is not None:
            entry[1].join(END_TIMEOUT)
        return entry is None or not entry[1].is_alive()

    # --- recovery ---

    def recover(self, makers_by_kind: Mapping[str, RunnableMaker]) -> None:
        """Resume an earlier server's jobs, and remove the hosts of all other plans.

        The kinds are resumed in the order of `makers_by_kind`. In this order, a kind comes after the kinds that it
        owns: when a tuning job resumes, its trials are running again.
        """
        hosts_by_plan = dict(self._context.runtime.find_hosts())
        self._remove_incomplete_plans(hosts_by_plan)
        for kind, maker in makers_by_kind.items():
            for record in self._context.state.find_in_statuses(kind, _get_active_statuses(find_kind(kind))):
                try:
                    self._recover(maker(self._context, record), hosts_by_plan)
                except Exception as error:
                    logger.exception("%s/%s cannot be resumed", kind, record.name)
                    self._fail(f"{kind}/{record.name}", error)
        for plan_name in hosts_by_plan:
            logger.info("removing the hosts and files of %s", plan_name)
            self._remove(plan_name)

    def _recover(self, job: Runnable, hosts_by_plan: dict[str, Sequence[Host]]) -> None:
        """Resume a job with its hosts, and remove these hosts from `hosts_by_plan`."""
        own_plan_names = _select_plan_names(job, list(hosts_by_plan))
        own_hosts = [host for plan_name in own_plan_names for host in hosts_by_plan.pop(plan_name)]
        logger.info("resuming %s with %d hosts", job.plan_name, len(own_hosts))
        self.start(job, functools.partial(job.recover, own_hosts))

    def _fail(self, plan_name: str, error: Exception) -> None:
        """Store the failure of a job in its description, because the job itself has not stored it. Otherwise,
        clients would wait forever for the job's end."""
        arn_type, _, name = plan_name.partition("/")
        kind = find_kind(arn_type)
        reason = f"{INTERNAL_ERROR}: {type(error).__name__}: {error}; see the server's log"[:MAX_REASON_CHARACTERS]
        changes = {kind.status_member: "Failed", "FailureReason": reason}
        try:
            self._context.state.update(arn_type, name, changes, "Failed", only_if=_get_active_statuses(kind))
        except Exception:
            logger.exception("could not store the failure of %s in its description", plan_name)

    def _remove(self, plan_name: str) -> None:
        """Remove the hosts and files of a plan. An error is logged, so that the server can start."""
        try:
            remove_plan(self._context, plan_name)
        except Exception:
            logger.exception("could not remove %s", plan_name)
            discard(self._context.get_work_folder(plan_name))

    def _remove_incomplete_plans(self, hosts_by_plan: dict[str, Sequence[Host]]) -> None:
        """Remove each plan whose list of hosts is empty, because its start was not completed, and drop it from
        `hosts_by_plan`. Then remove the work folders that no remaining plan uses."""
        for name in [name for name, hosts in hosts_by_plan.items() if not hosts]:
            logger.info("removing what the incomplete start of %s left", name)
            self._remove(name)
            del hosts_by_plan[name]
        used_folders = {self._context.get_work_folder(name) for name in hosts_by_plan}
        for folder in self._context.home.work.glob("*-*"):
            if folder not in used_folders:
                discard(folder)

    # --- the end ---

    def shut_down(self) -> None:
        """Stop all jobs, and wait until they have ended. Remove the hosts of jobs that do not end in time."""
        with self._lock:
            self._is_closing = True
            running = list(self._running.values())
        for is_last in (False, True):
            self._end([entry for entry in running if _get_kind(entry[0]).is_ended_last is is_last])

    def _end(self, running: Sequence[tuple[Runnable, threading.Thread]]) -> None:
        for job, _ in running:
            job.events.stop(StopReason.SHUTDOWN)
        self._context.runtime.cancel_installations()
        deadline = time.monotonic() + END_TIMEOUT
        for job, thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                logger.warning("%s did not end within %g s", job.plan_name, END_TIMEOUT)
                for name in [job.plan_name, *_select_plan_names(job, list(self._context.runtime.find_hosts()))]:
                    self._context.runtime.remove(name)


def _get_kind(job: Runnable) -> Kind:
    return find_kind(job.plan_name.partition("/")[0])


def _select_plan_names(job: Runnable, names: Sequence[str]) -> list[str]:
    """Return the names of a job's plans: its own name, or the names of an endpoint's replicas, which begin with it."""
    return [name for name in names if f"{name}/".startswith(f"{job.plan_name}/")]


def _get_active_statuses(kind: Kind) -> tuple[str, ...]:
    return kind.lifecycle.active_statuses if kind.lifecycle else ()
