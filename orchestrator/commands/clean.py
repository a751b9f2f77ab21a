"""`microjobs clean`: remove old runs, images, environments, or the whole home."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from microjobs_orchestrator.cleaning import Removable
    from microjobs_orchestrator.commands import Subparsers

KINDS = ("runs", "images", "environments", "home")
MAX_LINES = 20
"""Items that the command lists before it asks."""
EPILOG = """without WHAT, the command shows number and size of each and removes nothing:
  runs          runs older than --older-than: their data, models, logs, reports and jobs
  images        images of the repository's jobs, with all tags
  environments  virtual environments of jobs that run as processes
  home          the whole folder .microjobs: buckets with your data, models, logs, jobs, runs
"""


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "clean",
        help="remove old runs, images, environments, or the whole home; asks first",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("what", nargs="*", type=_kind, metavar="WHAT", help=", ".join(KINDS))
    add("--older-than", type=_days, default=7.0, metavar="DAYS", help="minimum age of runs (default: 7; 0: all runs)")
    add("--yes", action="store_true", help="remove without asking")
    parser.set_defaults(call=call)


def _kind(text: str) -> str:
    if text not in KINDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(KINDS)}")
    return text


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days, such as 7 or 0.5")
    return days


def call(options: argparse.Namespace) -> int:
    from microjobs_orchestrator import cleaning
    from microjobs_orchestrator.local.home import Home

    home = Home.from_environment()
    listers: dict[str, Callable[[], list[Removable]]] = {
        "runs": lambda: cleaning.list_runs(home, options.older_than),
        "images": cleaning.list_images,
        "environments": lambda: cleaning.list_environments(home),
        "home": lambda: cleaning.list_home(home),
    }
    if not options.what:
        return _print_summary(listers, f"older than {options.older_than:g} days")
    with cleaning.lock_home(home):
        return _clean(_list(listers, options.what), yes=options.yes)


def _list(listers: "dict[str, Callable[[], list[Removable]]]", kinds: "Sequence[str]") -> "list[Removable]":
    """List the items of some kinds. Without an engine, print a warning and list all but the images."""
    from docker.errors import DockerException

    from microjobs_orchestrator.failures import LauncherError

    found: list[Removable] = []
    for what in dict.fromkeys(kinds):
        try:
            found += listers[what]()
        except DockerException as error:
            message = (
                f"no Docker engine answers ({error}), so {what} cannot be removed: start the engine, and try again"
            )
            if {*kinds} == {what}:
                raise LauncherError(message) from error
            print(f"microjobs: {message}", file=sys.stderr)
    return found


def _print_summary(listers: "dict[str, Callable[[], list[Removable]]]", age: str) -> int:
    from docker.errors import DockerException

    for what, list_items in listers.items():
        try:
            found = list_items()
        except DockerException:
            print(f"{what:13} no Docker engine answers")
            continue
        note = f"  ({age})" if what == "runs" else ""
        print(f"{what:13} {len(found):4}  {_format_size(found)}{note}")
    print("`microjobs clean runs`, for example, removes the runs, and asks first")
    return 0


def _clean(found: "Sequence[Removable]", *, yes: bool) -> int:
    from microjobs_orchestrator.failures import LauncherError

    if not found:
        print("there is nothing to remove")
        return 0
    for item in found[:MAX_LINES]:
        print(f"{_format_size([item]):>10}  {item.title}")
    if len(found) > MAX_LINES:
        print(f"{'':10}  and {len(found) - MAX_LINES} more")
    _ask(f"Remove {_format_size(found)}?", yes=yes)
    failed = 0
    for item in found:
        try:
            item.remove()
        except (LauncherError, OSError) as error:
            failed += 1
            print(f"microjobs: {error}", file=sys.stderr)
    print(f"removed {len(found) - failed} of {len(found)}")
    return 1 if failed else 0


def _ask(question: str, *, yes: bool) -> None:
    from microjobs_orchestrator.failures import LauncherError, UsageError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("`microjobs clean` asks before it removes files, and stdin is not a terminal: add --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise LauncherError("nothing was removed")


def _format_size(found: "Sequence[Removable]") -> str:
    size = float(sum(item.size_bytes for item in found))
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
