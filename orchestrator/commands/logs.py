"""`microjobs logs JOB`."""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence

from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.commands import backends, completion
from microjobs_orchestrator.runs.kinds import Kind, Members
from microjobs_orchestrator.runs.logs import LogEvent, Tail
from microjobs_orchestrator.runs.view import View
from microjobs_orchestrator.terminal import strip_controls


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="print new lines until the job ends")
    job = parser.add_argument("job", metavar="JOB", help="name of the job or endpoint, as `microjobs ps` lists it")
    completion.set_completer(job, completion.list_job_and_endpoint_names)
    flags.add(parser)


def call(options: argparse.Namespace) -> int:
    view = backends.open_view(options)
    kind, _ = view.find(options.job)
    tails = view.list_tails(kind, options.job)
    while True:
        # The status is read before the log: if the job ends in between, the next pass reads its last lines.
        follow = options.follow and _can_grow(view, kind, options.job)
        for event in _read(tails, follow=follow):
            _print(event, flush=follow)
        if not follow:
            _print_failure(kind, view.describe(kind, options.job) or {}, options.job)
            return 0
        time.sleep(view.poll_interval)


def _read(tails: Sequence[Tail], *, follow: bool) -> Iterable[LogEvent]:
    """Return the new lines of all tails. With `follow`, return at most one page of lines per log stream."""
    if len(tails) == 1 and not follow:
        return tails[0].read_remaining()
    events = [event for tail in tails for event in (tail.read() if follow else tail.read_remaining())]
    return sorted(events, key=lambda event: event.time)


def _print(event: LogEvent, *, flush: bool) -> None:
    """Print each row of an event after the name of its host, so that a job cannot imitate lines of another host."""
    host, text = strip_controls(event.host), strip_controls(event.text, keep_colours=sys.stdout.isatty())
    for row in text.split("\n"):
        print(f"{host}  {row}", flush=flush)


def _print_failure(kind: Kind, description: Members, name: str) -> None:
    """Print the reason of a failure on stderr: a job that did not start has no log."""
    if reason := description.get("FailureReason"):
        sys.stdout.flush()
        message = f"{kind.title} {name} is {description[kind.status_member]}: {strip_controls(reason)}"
        print(f"microjobs: {message}", file=sys.stderr)


def _can_grow(view: View, kind: Kind, name: str) -> bool:
    """Return whether the log can get more lines. Print a warning if the job is active but its server is not running."""
    description = view.describe(kind, name)
    if description is None or description[kind.status_member] not in kind.lifecycle.active_statuses:
        return False
    if not view.can_change:
        print(f"microjobs: {view.make_warning(shows_running=True)}", file=sys.stderr)
    return view.can_change
