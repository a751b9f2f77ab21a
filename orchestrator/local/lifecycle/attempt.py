"""One attempt of a job or a replica: from a plan to hosts, and from hosts to an outcome."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from microjobs.contract import Layout, write_job_secret
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import EventQueue, StopReason
from microjobs_orchestrator.local.lifecycle.hosts import HostGroup, Outcome
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.runtimes.base import Host, Line, Plan
from microjobs_orchestrator.local.trees import discard

SECRET_BYTES = 32
"""Random bytes in the secret of a job."""


def ignore_line(line: Line) -> None:
    """Ignore a line of output: only training jobs read metrics from it."""


@dataclass(frozen=True)
class Attempt:
    """What to run, and where its output goes."""

    plan_name: str
    image: str
    """The local name."""
    make_plan: Callable[[Path], Plan]
    """Makes the plan, with inputs and configuration files in a new folder."""
    open_stream: Callable[[str], LogStream]
    """Returns the log stream of a host."""
    on_line: Callable[[Line], None] = ignore_line
    """Called with each line of output, from the hosts' threads."""
    on_interruption: Callable[[], None] = lambda: None
    """Called before the hosts are stopped for an interruption."""


def start_hosts(context: Context, attempt: Attempt, events: EventQueue) -> Sequence[Host]:
    """Start the hosts of an attempt. Return none if the job is stopped first.

    Raises:
        CannotRunError: the image, the inputs or the plan cannot be used; nothing was started.
    """
    return launch_plan(context, attempt, prepare_plan(context, attempt), events) if events.stop_reason is None else ()


def prepare_plan(context: Context, attempt: Attempt) -> Plan:
    """Make the plan of an attempt, in an empty work folder. Fetch the image.

    Raises:
        CannotRunError: the image or the inputs cannot be used.
    """
    context.runtime.prepare(attempt.image)
    plan = attempt.make_plan(context.new_work_folder(attempt.plan_name))
    _write_secret(plan)
    return plan


def launch_plan(context: Context, attempt: Attempt, plan: Plan, events: EventQueue) -> Sequence[Host]:
    """Start the hosts of a plan. Return none if the job was stopped.

    Raises:
        CannotRunError: the plan cannot be started; nothing was started.
    """
    for host in plan.hosts:
        attempt.open_stream(host.name).begin()
    return context.runtime.start(plan) if events.stop_reason is None else ()


def _write_secret(plan: Plan) -> None:
    """Give the hosts of a job a new secret, with which they authenticate each other."""
    if len(plan.hosts) > 1:
        secret = secrets.token_hex(SECRET_BYTES)
        for host in plan.hosts:
            write_job_secret(Layout(host.files), secret)


def follow_hosts(attempt: Attempt, hosts: Sequence[Host], events: EventQueue, timeout: float | None = None) -> Outcome:
    """Follow the running hosts of an attempt to their end; stop them after `timeout` seconds."""
    streams = {host.name: attempt.open_stream(host.name) for host in hosts}
    return HostGroup(hosts, streams, events, attempt.on_line, attempt.on_interruption).run(timeout)


def remove_plan(context: Context, plan_name: str) -> None:
    """Remove the hosts of a plan, ended or running, and its work folder."""
    context.runtime.remove(plan_name)
    discard(context.work_folder(plan_name))


class Ending(Enum):
    """Why a job ended; the first one that applies counts."""

    SHUT_DOWN = "the server was shut down"
    FAILED = "a host failed"
    TIMED_OUT = "the job's time is over"
    STOPPED = "a Stop request"
    COMPLETED = "all hosts ended well"


def classify_end(outcome: Outcome, events: EventQueue) -> Ending:
    """Classify the end of a job's last attempt."""
    if events.stop_reason is StopReason.SHUTDOWN:
        return Ending.SHUT_DOWN
    if outcome.first_failed is not None:
        return Ending.FAILED
    by_reason = {StopReason.TIMEOUT: Ending.TIMED_OUT, StopReason.REQUEST: Ending.STOPPED}
    return Ending.COMPLETED if events.stop_reason is None else by_reason.get(events.stop_reason, Ending.COMPLETED)
