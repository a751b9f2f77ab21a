"""One attempt of a job or a replica: its plan, the start of its hosts, and its outcome."""

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from microjobs.contract import Layout, write_job_secret
from microjobs_orchestrator.local.lifecycle import debugging
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import EventQueue, Interruption, StopReason
from microjobs_orchestrator.local.lifecycle.usage import Meter
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.runtimes.base import Exit, Host, HostLimits, HostPlan, Line, Plan
from microjobs_orchestrator.local.trees import discard

SECRET_BYTES = 32


@dataclass(frozen=True)
class Attempt:
    """The plan to run, and the functions that receive the output of its hosts."""

    plan_name: str
    image: str
    """The image's name in the request. If the request has several images, it is the first one."""
    make_plan: Callable[[Path], Plan]
    """Makes the plan, with inputs and configuration files in a new folder."""
    open_stream: Callable[[str], LogStream]
    on_line: Callable[[Line], None] = lambda _: None
    """Called with each line of output, from the hosts' threads."""
    on_interruption: Callable[[], None] = lambda: None
    """Called before the hosts are stopped for an interruption."""
    meter: Meter | None = None
    """Records the resources that the hosts use."""
    other_images: Sequence[str] = ()
    """The names of the other images in the request, if hosts have different ones."""


def limit_hosts(attempt: Attempt, limits: HostLimits | None) -> Attempt:
    """Return the attempt with other limits of its hosts; None keeps the attempt's own limits."""

    def make_plan(folder: Path) -> Plan:
        plan = attempt.make_plan(folder)
        hosts = (dataclasses.replace(host, limits=limits or host.limits) for host in plan.hosts)
        return dataclasses.replace(plan, hosts=tuple(hosts))

    return dataclasses.replace(attempt, make_plan=make_plan)


@dataclass
class Outcome:
    """The exits of an attempt's hosts."""

    hosts: Sequence[Host] = ()
    """Empty if the job was stopped before they started."""
    exits: dict[str, Exit] = field(default_factory=dict)
    """The exits of the hosts that have ended, by the name of the host."""
    first_failed_host: str | None = None
    """The host that failed by itself; the other hosts were stopped because of this failure."""
    interruption: Interruption | None = None
    """The interruption that ended the hosts, whatever their exit codes."""


def prepare_plan(context: Context, attempt: Attempt, events: EventQueue) -> Plan:
    """Fetch an attempt's images, and make its plan.

    Raises:
        CannotRunError: an image or an input cannot be used, or a stop ended the pull of an image.
    """
    notes = [
        note
        for image in dict.fromkeys((attempt.image, *attempt.other_images))
        for note in (
            context.make_image_note(image),
            context.runtime.prepare(context.resolve_image(image), events.stopped),
        )
    ]
    plan = attempt.make_plan(context.make_work_folder(attempt.plan_name))
    plan = dataclasses.replace(plan, notes=tuple(filter(None, notes)))
    if len(plan.hosts) > 1:
        secret = secrets.token_hex(SECRET_BYTES)  # the hosts authenticate each other with this secret
        for host in plan.hosts:
            write_job_secret(Layout(host.files), secret)
    plan = debugging.add_debugger(plan, context.runtime.name)
    return plan if plan.isolated else _add_network_settings(context, plan)


def _add_network_settings(context: Context, plan: Plan) -> Plan:
    """Give the hosts of a plan the proxies and the certificates of the server's settings."""
    settings = context.settings
    names_without_proxy = [urlsplit(settings.url).hostname or "", *(host.name for host in plan.hosts)]

    def add_settings(host: HostPlan) -> HostPlan:
        settings.network.write_files(host.files)
        variables = settings.network.make_variables(host.environment, names_without_proxy)
        return dataclasses.replace(host, default_variables={**variables, **host.default_variables})

    return dataclasses.replace(plan, hosts=tuple(map(add_settings, plan.hosts)))


def launch_plan(context: Context, attempt: Attempt, plan: Plan, events: EventQueue) -> Sequence[Host]:
    """Start a plan's hosts, or no host if the job was stopped. Raise CannotRunError if a host cannot start."""
    for host in plan.hosts:
        stream = attempt.open_stream(host.name)
        stream.mark_host_start()
        for note in filter(None, (*plan.notes, debugging.describe_debugger(host))):
            stream.note(note)
    return context.runtime.start(plan) if events.stop_reason is None else ()


def remove_plan(context: Context, plan_name: str) -> None:
    """Remove the hosts of a plan, ended or running, and its work folder."""
    context.runtime.remove(plan_name)
    discard(context.get_work_folder(plan_name))


class EndReason(Enum):
    """The reason for a job's end. If several reasons apply, the first applicable reason in this list counts."""

    SHUT_DOWN = "the server was shut down"
    FAILED = "a host failed"
    TIMED_OUT = "the job's time limit was reached"
    STOPPED = "a Stop request"
    COMPLETED = "all hosts succeeded"


def classify_end(outcome: Outcome, events: EventQueue) -> EndReason:
    if events.stop_reason is StopReason.SHUTDOWN:
        return EndReason.SHUT_DOWN
    if outcome.first_failed_host is not None:
        return EndReason.FAILED
    if events.stop_reason in (StopReason.TIMEOUT, StopReason.REQUEST):
        return EndReason.TIMED_OUT if events.stop_reason is StopReason.TIMEOUT else EndReason.STOPPED
    return EndReason.COMPLETED
