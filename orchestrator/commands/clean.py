"""`microjobs clean`: remove old runs, images, environments, or the whole home."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from microjobs_orchestrator.cleaning import Item
    from microjobs_orchestrator.commands import Subparsers

KINDS = ("runs", "images", "environments", "home")
SHOWN = 20
"""Items that are listed one by one."""
EPILOG = """without WHAT it shows what there is and removes nothing:
  runs          runs older than --older-than: their data, models, logs, reports and jobs
  images        images of this repository's jobs, under all tags
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
    add("--older-than", type=_days, default=7.0, metavar="DAYS", help="of runs (default: 7; 0: all)")
    add("--yes", action="store_true", help="remove without asking")
    parser.set_defaults(call=call)


def _kind(text: str) -> str:
    if text not in KINDS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(KINDS)}")
    return text


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return days


def call(options: argparse.Namespace) -> int:
    from microjobs_orchestrator import cleaning
    from microjobs_orchestrator.local.home import Home

    home = Home.from_environment()
    finders: dict[str, Callable[[], list[Item]]] = {
        "runs": lambda: cleaning.runs(home, options.older_than),
        "images": cleaning.images,
        "environments": lambda: cleaning.environments(home),
        "home": lambda: cleaning.everything(home),
    }
    if not options.what:
        return _survey(finders, f"older than {options.older_than:g} days")
    with cleaning.unused(home):
        return _clean(_find(finders, options.what), yes=options.yes)


def _find(finders: "dict[str, Callable[[], list[Item]]]", kinds: "Sequence[str]") -> "list[Item]":
    """The items of some kinds. A missing engine keeps only its images from being found."""
    from docker.errors import DockerException

    from microjobs_orchestrator.failures import LauncherError

    found: list[Item] = []
    for what in dict.fromkeys(kinds):
        try:
            found += finders[what]()
        except DockerException as error:
            told = f"no Docker engine answers ({error}), so no {what} can be removed: start it if it has some"
            if {*kinds} == {what}:
                raise LauncherError(told) from error
            print(f"microjobs: {told}", file=sys.stderr)
    return found


def _survey(finders: "dict[str, Callable[[], list[Item]]]", age: str) -> int:
    from docker.errors import DockerException

    for what, find in finders.items():
        try:
            found = find()
        except DockerException:
            print(f"{what:13} no Docker engine answers")
            continue
        counted = f"  ({age})" if what == "runs" else ""
        print(f"{what:13} {len(found):4}  {_size(found)}{counted}")
    print("`microjobs clean runs` and so on removes them, and asks first")
    return 0


def _clean(found: "Sequence[Item]", *, yes: bool) -> int:
    from microjobs_orchestrator.failures import LauncherError

    if not found:
        print("there is nothing to remove")
        return 0
    for item in found[:SHOWN]:
        print(f"{_size([item]):>10}  {item.title}")
    if len(found) > SHOWN:
        print(f"{'':10}  and {len(found) - SHOWN} more")
    _ask(f"Remove {_size(found)}?", yes=yes)
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
        raise UsageError("this removes files, and nobody can be asked here: add --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise LauncherError("nothing was removed")


def _size(found: "Sequence[Item]") -> str:
    size = float(sum(item.size_bytes for item in found))
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
