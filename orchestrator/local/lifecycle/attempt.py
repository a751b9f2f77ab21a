"""One attempt of a job or a replica: from a plan to hosts, and from hosts to an outcome."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from microjobs.contract import Layout
from microjobs.job_secret import write_job_secret
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.control import Control, StopReason
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


def start(context: Context, attempt: Attempt, control: Control) -> Sequence[Host]:
    """Start the hosts of an attempt. Return none if the job is stopped first.

    Raises:
        CannotRunError: the image, the inputs or the plan cannot be used; nothing was started.
    """
    return launch(context, attempt, prepare(context, attempt), control) if control.reason is None else ()


def prepare(context: Context, attempt: Attempt) -> Plan:
    """Make the plan of an attempt, in an empty work folder. Fetch the image.

    Raises:
        CannotRunError: the image or the inputs cannot be used.
    """
    context.runtime.prepare(attempt.image)
    plan = attempt.make_plan(context.new_work_folder(attempt.plan_name))
    _write_secret(plan)
    return plan


def launch(context: Context, attempt: Attempt, plan: Plan, control: Control) -> Sequence[Host]:
    """Start the hosts of a plan. Return none if the job was stopped.

    Raises:
        CannotRunError: the plan cannot be started; nothing was started.
    """
    for host in plan.hosts:
        attempt.open_stream(host.name).begin()
    return context.runtime.start(plan) if control.reason is None else ()


def _write_secret(plan: Plan) -> None:
    """Give the hosts of a job a new secret, with which they authenticate each other."""
    if len(plan.hosts) > 1:
        secret = secrets.token_hex(SECRET_BYTES)
        for host in plan.hosts:
            write_job_secret(Layout(host.files), secret)


def follow(attempt: Attempt, hosts: Sequence[Host], control: Control, timeout: float | None = None) -> Outcome:
    """Follow the running hosts of an attempt to their end; stop them after `timeout` seconds."""
    streams = {host.name: attempt.open_stream(host.name) for host in hosts}
    return HostGroup(hosts, streams, control, attempt.on_line, attempt.on_interruption).run(timeout)


def remove(context: Context, plan_name: str) -> None:
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


def classify(outcome: Outcome, control: Control) -> Ending:
    """Classify the end of a job's last attempt."""
    if control.reason is StopReason.SHUTDOWN:
        return Ending.SHUT_DOWN
    if outcome.first_failed is not None:
        return Ending.FAILED
    by_reason = {StopReason.TIMEOUT: Ending.TIMED_OUT, StopReason.REQUEST: Ending.STOPPED}
    return Ending.COMPLETED if control.reason is None else by_reason.get(control.reason, Ending.COMPLETED)
