"""`microjobs ps`: jobs and endpoints, newest first."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.commands import backends, parse_count
from microjobs_orchestrator.terminal import safe

if TYPE_CHECKING:
    from microjobs_orchestrator.commands import Subparsers
    from microjobs_orchestrator.runs.view import Filter, ResourceRow


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("ps", help="list jobs and endpoints")
    add = parser.add_argument
    add("-n", "--limit", type=parse_count, default=20, metavar="N", help="only the newest N (default: %(default)s)")
    add("--kind", choices=("processing", "training", "tuning", "transform", "endpoint"), help="only this kind")
    add("--name", default="", metavar="TEXT", help="only names that contain TEXT")
    states = parser.add_mutually_exclusive_group()
    states.add_argument("--running", action="store_true", help="only what has not ended, and endpoints in service")
    states.add_argument("--status", metavar="S", help="only this status, such as Failed or Interrupted")
    flags.add(parser)
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    wanted = _filter(options)
    view = backends.open_view(options)
    listed = view.newest(wanted)
    for line in table(listed, datetime.now(UTC)):
        print(safe(line))
    if advice := view.warning(shows_running=any(row.status in row.kind.transitional for row in listed)):
        print(f"microjobs: {advice}", file=sys.stderr)
    return 0


def _filter(options: argparse.Namespace) -> "Filter":
    from microjobs_orchestrator.runs.kinds import KINDS
    from microjobs_orchestrator.runs.view import Filter

    kinds = tuple(kind for kind in KINDS if options.kind in (None, kind.title))
    status = _status(options.status) if options.status else ""
    return Filter(options.limit, kinds, options.name, status, options.running)


def _status(text: str) -> str:
    """A status in AWS's spelling, found whatever its case."""
    from microjobs_orchestrator.failures import UsageError
    from microjobs_orchestrator.runs.kinds import KINDS

    known = {status.lower(): status for status in [s for kind in KINDS for s in (*kind.life.secondary, *kind.statuses)]}
    if text.lower() not in known:
        raise UsageError(f"no job or endpoint has a status {text!r}: take one of {', '.join(sorted(known.values()))}")
    return known[text.lower()]


def table(listed: Sequence["ResourceRow"], now: datetime) -> list[str]:
    """Lines with aligned columns: kind, name, status, age, and how long it took or takes."""
    from microjobs_orchestrator.durations import duration

    rows = [("KIND", "NAME", "STATUS", "AGE", "TOOK")]
    for row in listed:
        took = duration(((row.ended or now) - row.created).total_seconds())
        rows.append((row.kind.title, row.name, row.full_status, duration((now - row.created).total_seconds()), took))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
