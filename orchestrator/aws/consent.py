"""What a run on AWS may cost, shown before anything starts, and the question whether it may."""

import sys
from collections.abc import Iterable

from rich.console import Console

from microjobs_orchestrator.aws import costs
from microjobs_orchestrator.aws.prices import prices
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.failures import LauncherError, UsageError
from microjobs_orchestrator.runs.plan import PlannedRequest


def show(console: Console, settings: Settings, plan: Iterable[PlannedRequest]) -> None:
    """The table of what will run and what it costs."""
    known = prices(settings)
    found = costs.estimates(plan, 60 * settings.max_minutes)
    console.print(costs.table(found, known))
    if unknown := costs.unpriced(found, known):
        console.print(
            f"No price is known of {', '.join(unknown)} in {settings.region}: "
            'write it into microjobs.toml, [aws.prices] "TYPE" = DOLLARS_AN_HOUR',
            soft_wrap=True,
        )
    if settings.spot:
        console.print("Spot instances cost less than these prices, which are those on demand.")
    console.print(
        f"Expected: {costs.EXPECTED_SECONDS / 60:g} min an instance. At most: {settings.max_minutes} min, then AWS "
        "ends a job, and the launcher its endpoint. Storage and logs cost a little more.",
        soft_wrap=True,
    )


def ask(console: Console, *, yes: bool) -> None:
    """Ask whether to start.

    Args:
        console: where.
        yes: the answer was given beforehand.

    Raises:
        UsageError: there is nobody to answer.
        LauncherError: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("this costs money, and nobody can be asked here: add --yes")
    if console.input("Start? [y/N] ").strip().lower() not in ("y", "yes"):
        raise LauncherError("nothing was started")
