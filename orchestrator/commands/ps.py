"""`microjobs ps`: jobs and endpoints, newest first."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.commands import backends, parse_count
from microjobs_orchestrator.durations import format_duration
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.runs.kinds import KINDS
from microjobs_orchestrator.runs.view import Filter, ResourceRow
from microjobs_orchestrator.terminal import strip_controls


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-n", "--limit", type=parse_count, default=20, metavar="N", help="only the newest N (default: %(default)s)")
    add("--kind", choices=sorted(kind.title for kind in KINDS), help="only this kind")
    add("--name", default="", metavar="TEXT", help="only names that contain TEXT")
    states = parser.add_mutually_exclusive_group()
    states.add_argument(
        "--running", action="store_true", help="only jobs that have not ended, and endpoints that run or change"
    )
    states.add_argument("--status", metavar="S", help="only this status, such as Failed or Interrupted")
    flags.add(parser)


def call(options: argparse.Namespace) -> int:
    kinds = tuple(kind for kind in KINDS if options.kind in (None, kind.title))
    status = _parse_status(options.status) if options.status else ""
    view = backends.open_view(options)
    rows = view.list_newest(
        Filter(limit=options.limit, kinds=kinds, name=options.name, status=status, running=options.running)
    )
    for line in format_table(rows, datetime.now(UTC)):
        print(strip_controls(line))
    if warning := view.make_warning(
        shows_running=any(row.status in row.kind.lifecycle.transitional_statuses for row in rows)
    ):
        print(f"microjobs: {warning}", file=sys.stderr)
    return 0


def _parse_status(text: str) -> str:
    """Return a status in AWS's spelling. The case of the text is ignored."""
    statuses: list[str] = [
        status for kind in KINDS for status in (*kind.lifecycle.secondary_statuses, *kind.lifecycle.statuses)
    ]
    spellings = {status.lower(): status for status in statuses}
    if text.lower() not in spellings:
        names = ", ".join(sorted(spellings.values()))
        raise UsageError(f"no job or endpoint can have status {text!r}: choose one of {names}")
    return spellings[text.lower()]


def format_table(rows: Sequence[ResourceRow], now: datetime) -> list[str]:
    """Return lines with aligned columns: kind, name, status, age, and the time from creation to the end or to now."""
    text_rows = [("KIND", "NAME", "STATUS", "AGE", "TOOK")]
    for row in rows:
        age = format_duration((now - row.creation_time).total_seconds())
        took = format_duration(((row.end_time or now) - row.creation_time).total_seconds())
        text_rows.append((row.kind.title, row.name, row.full_status, age, took))
    widths = [max(map(len, column)) for column in zip(*text_rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(texts, widths, strict=True)).rstrip() for texts in text_rows
    ]
