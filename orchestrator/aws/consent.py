"""Consent to the cost of a run on AWS."""

import sys
from collections.abc import Iterable

from rich.console import Console

from microjobs_orchestrator.aws import costs
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.failures import LauncherError, UsageError
from microjobs_orchestrator.runs.planned import PlannedRequest


def show(console: Console, settings: Settings, requests: Iterable[PlannedRequest]) -> None:
    """Print the estimated cost of a run."""
    prices = costs.load_prices(settings)
    estimates = list(costs.estimate(requests, 60 * settings.max_minutes))
    console.print(costs.table(estimates, prices))
    if unpriced := sorted({item.instance_type for item in estimates} - prices.keys()):
        console.print(
            f"The price of {', '.join(unpriced)} in {settings.region} is unknown: "
            'add it to microjobs.toml, [aws.prices] "TYPE" = DOLLARS_PER_HOUR',
            soft_wrap=True,
        )
    if settings.spot:
        console.print("These are on-demand prices. Spot instances cost less.")
    console.print(
        f"Expected: {costs.EXPECTED_SECONDS / 60:g} min per instance. At most: {settings.max_minutes} min, then AWS "
        "ends the job, and the launcher deletes the endpoint. Storage and logs cost a little more.",
        soft_wrap=True,
    )


def ask(console: Console, *, yes: bool) -> None:
    """Ask whether to start the run.

    Args:
        yes: start without asking.

    Raises:
        UsageError: standard input is not a terminal.
        LauncherError: the user does not consent.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("this run costs money, and standard input is not a terminal: add --yes to consent")
    if console.input("Start? [y/N] ").strip().lower() not in ("y", "yes"):
        raise LauncherError("nothing was started")
