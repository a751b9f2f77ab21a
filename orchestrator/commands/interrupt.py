"""`microjobs interrupt JOB`: interrupt a managed spot training job, as AWS may do."""

import argparse
import time
from functools import partial

from microjobs_orchestrator.commands import completion, parse_number
from microjobs_orchestrator.failures import CommandError, UsageError
from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.lifecycle.events import Interruption
from microjobs_orchestrator.local.resources.training import interruptions
from microjobs_orchestrator.runs.home_view import HomeView
from microjobs_orchestrator.runs.kinds import TRAINING

START_TIMEOUT_SECONDS = 10.0
"""Seconds for the server to start the interruption."""

DESCRIPTION = """Simulates the end of a spot instance on this machine: the job's hosts receive SIGTERM, and
SIGKILL after the time of --notice. Then the job restarts on new hosts, with its checkpoint folder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    add, parse_seconds = parser.add_argument, partial(parse_number, unit="seconds")
    job = add("job", metavar="JOB", help="a spot training job whose secondary status is Training")
    completion.set_completer(job, completion.list_job_and_endpoint_names)
    add(
        "--notice",
        type=parse_seconds,
        default=120.0,
        metavar="S",
        help="seconds until SIGKILL (default: 120, as on AWS)",
    )
    add("--away", type=parse_seconds, default=0.0, metavar="S", help="seconds until new hosts start (default: 0)")


def call(options: argparse.Namespace) -> int:
    home, name = Home.from_environment(), options.job
    if (address := control.find_server(home)) is None:
        raise UsageError(control.explain_missing_server(home))
    view = HomeView(home)
    kind, job = view.find(name)
    if kind is not TRAINING or not job.get("EnableManagedSpotTraining"):
        raise UsageError(
            f"{name} is not a managed spot training job: only jobs with EnableManagedSpotTraining can be interrupted"
        )
    if job["SecondaryStatus"] != "Training":
        raise UsageError(f"{name} is {job['SecondaryStatus']}: only a job that is Training can be interrupted")
    if message := interruptions.request_interruption(address, name, Interruption(options.notice, options.away)):
        raise CommandError(f"{name} was not interrupted: {message}")
    statuses = _wait_for_transitions(view, name, len(job["SecondaryStatusTransitions"]))
    if "Interrupted" not in statuses:
        raise CommandError(f"{name} was not interrupted: it is {statuses[0] if statuses else 'Training'}")
    print(f"{name} is interrupted: its hosts end within {options.notice:g} s, then it restarts on new hosts")
    return 0


def _wait_for_transitions(view: HomeView, name: str, known_count: int) -> list[str]:
    """Wait for new transitions of a job's secondary status, and return their statuses.

    Args:
        known_count: the number of earlier transitions.
    """
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        description = view.describe(TRAINING, name) or {}
        if transitions := description.get("SecondaryStatusTransitions", [])[known_count:]:
            return [transition["Status"] for transition in transitions]
        time.sleep(view.poll_interval)
    return []
