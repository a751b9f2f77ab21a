"""`microjobs interrupt JOB`: take the hosts of a managed spot training job away, as AWS may do."""

import argparse
import time
from typing import TYPE_CHECKING

from microjobs_orchestrator.commands.completion import complete, jobs
from microjobs_orchestrator.failures import LauncherError, UsageError

if TYPE_CHECKING:
    from microjobs_orchestrator.commands import Subparsers

TAKEN_SECONDS = 10.0
"""How long the server may take to begin."""


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "interrupt",
        help="take the hosts of a spot training job away, and have it start over on new ones",
        description="A drill for managed spot training, on this machine: the job's hosts get SIGTERM, and SIGKILL when "
        "the notice is over. Then the job starts over on new hosts, with what was in the checkpoint folder.",
    )
    job = parser.add_argument("job", metavar="JOB", help="a spot training job that is Training")
    complete(job, jobs)
    parser.add_argument("--notice", type=_seconds, default=120.0, metavar="S", help="(default: 120 seconds, as on AWS)")
    parser.add_argument(
        "--away", type=_seconds, default=0.0, metavar="S", help="seconds until there are hosts again (default: 0)"
    )
    parser.set_defaults(call=call)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def call(options: argparse.Namespace) -> int:
    from microjobs_orchestrator.local import control
    from microjobs_orchestrator.local.home import Home
    from microjobs_orchestrator.local.lifecycle.control import Interruption
    from microjobs_orchestrator.local.resources.training import interruptions
    from microjobs_orchestrator.runs.backend import connect_local
    from microjobs_orchestrator.runs.home_view import HomeView
    from microjobs_orchestrator.runs.kinds import TRAINING

    home = Home.from_environment()
    if (address := control.running(home)) is None:
        raise UsageError(control.why_not_running(home))
    backend = connect_local(address, home.buckets)
    kind, job = HomeView(home).find(options.job)
    if kind is not TRAINING or not job.get("EnableManagedSpotTraining"):
        raise UsageError(
            f"{options.job} is no managed spot training job: only those are interrupted (EnableManagedSpotTraining)"
        )
    if job["SecondaryStatus"] != "Training":
        raise UsageError(f"{options.job} is {job['SecondaryStatus']}: only a job that is Training can be interrupted")
    interruption = Interruption(options.notice, options.away)
    if message := interruptions.request_interruption(address, options.job, interruption):
        raise LauncherError(f"{options.job} was not interrupted: {message}")
    before = len(job["SecondaryStatusTransitions"])
    deadline = time.monotonic() + TAKEN_SECONDS
    while time.monotonic() < deadline:
        new = (kind.describe(backend.sagemaker, options.job) or {}).get("SecondaryStatusTransitions", [])[before:]
        if new:
            break
        time.sleep(backend.poll_interval)
    if not any(step["Status"] == "Interrupted" for step in new):
        status = new[0]["Status"] if new else "Training"
        raise LauncherError(f"{options.job} was not interrupted: it is {status}")
    print(f"{options.job} is interrupted: its hosts end within {options.notice:g} s, then it starts over on new ones")
    return 0
