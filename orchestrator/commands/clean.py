"""`microjobs clean`: remove old runs, images, environments, or the whole home."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from docker.errors import DockerException

from microjobs_orchestrator import cleaning
from microjobs_orchestrator.cleaning import Removable
from microjobs_orchestrator.command_line import ask_for_consent
from microjobs_orchestrator.commands import parse_number
from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.local.home import Home

CATEGORIES = ("runs", "images", "environments", "home")
MAX_LISTED_ITEMS = 20
"""Maximum number of items that the command lists before it asks."""
EPILOG = """without WHAT, the command shows the number and the size of the items of each
category, and removes nothing. WHAT is one or more of:
  runs          runs older than --older-than: their data, models, logs, reports and jobs
  images        images of the ready-made jobs, with all tags
  environments  virtual environments of jobs that run as processes
  home          the whole folder .microjobs: buckets with your data, models, logs, jobs, runs
"""

Listers = Mapping[str, Callable[[], list[Removable]]]
"""For each category, a function that lists what can be removed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    add = parser.add_argument
    add("what", nargs="*", type=_parse_category, metavar="WHAT", help=", ".join(CATEGORIES))
    parse_days = partial(parse_number, unit="days")
    add(
        "--older-than",
        type=parse_days,
        default=7.0,
        metavar="DAYS",
        help="minimum age of runs (default: 7; 0: all runs)",
    )
    add("--yes", action="store_true", help="remove without asking")


def _parse_category(text: str) -> str:
    if text not in CATEGORIES:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(CATEGORIES)}")
    return text


def call(options: argparse.Namespace) -> int:
    home = Home.from_environment()
    listers: Listers = {
        "runs": lambda: cleaning.list_old_runs(home, options.older_than),
        "images": cleaning.list_images,
        "environments": lambda: cleaning.list_environments(home),
        "home": lambda: cleaning.list_home(home),
    }
    if not options.what:
        return _print_summary(listers, f"older than {options.older_than:g} days")
    with cleaning.lock_home(home):
        return _clean(_list_items(listers, options.what), yes=options.yes)


def _list_items(listers: Listers, categories: Sequence[str]) -> list[Removable]:
    """List the items of some categories. Without an engine, print a warning, and list everything except the images.

    Raise CommandError instead if only images are requested.
    """
    items: list[Removable] = []
    for category in dict.fromkeys(categories):
        try:
            items += listers[category]()
        except DockerException as error:
            message = (
                f"no Docker engine answers ({error}), so {category} cannot be removed: start the engine, and try again"
            )
            if {*categories} == {category}:
                raise CommandError(message) from error
            print(f"microjobs: {message}", file=sys.stderr)
    return items


def _print_summary(listers: Listers, age: str) -> int:
    for category, list_items in listers.items():
        try:
            items = list_items()
        except DockerException:
            print(f"{category:13} no Docker engine answers")
            continue
        note = f"  ({age})" if category == "runs" else ""
        print(f"{category:13} {len(items):4}  {_format_size(items)}{note}")
    print("to remove the runs, for example, use `microjobs clean runs`: it asks first")
    return 0


def _clean(items: Sequence[Removable], *, yes: bool) -> int:
    if not items:
        print("nothing to remove")
        return 0
    for item in items[:MAX_LISTED_ITEMS]:
        print(f"{_format_size([item]):>10}  {item.title}")
    if len(items) > MAX_LISTED_ITEMS:
        print(f"{'':10}  and {len(items) - MAX_LISTED_ITEMS} more")
    ask_for_consent(f"Remove {_format_size(items)}?", yes=yes, refusal="nothing was removed")
    failure_count = 0
    for item in items:
        try:
            item.remove()
        except (CommandError, OSError) as error:
            failure_count += 1
            print(f"microjobs: {error}", file=sys.stderr)
    print(f"removed {len(items) - failure_count} of {len(items)}")
    return 1 if failure_count else 0


def _format_size(items: Sequence[Removable]) -> str:
    size = float(sum(item.size_bytes for item in items))
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
