"""`microjobs ps`: jobs and endpoints, newest first."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.aws import flags

if TYPE_CHECKING:
    from orchestrator.commands import Subparsers
    from orchestrator.workflows.kinds import Listed


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("ps", help="list jobs and endpoints")
    parser.add_argument("-n", "--limit", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--running", action="store_true", help="only those that go on, and endpoints in service")
    flags.add(parser)
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    from orchestrator.workflows.kinds import ENDPOINT, KINDS

    limit = min(max(options.limit, 1), 100)
    with flags.reached(options) as place:
        listed = [row for kind in KINDS for row in kind.newest(place.sagemaker, limit)]
    if options.running:
        listed = [row for row in listed if row.kind is ENDPOINT or row.status in row.kind.going]
    listed.sort(key=lambda row: row.created, reverse=True)
    for line in table(listed[:limit], datetime.now(UTC)):
        print(line)
    return 0


def table(listed: Sequence["Listed"], now: datetime) -> list[str]:
    """Lines with aligned columns: kind, name, status, age, how long it took or takes."""
    from orchestrator.workflows.progress import duration

    rows = [("KIND", "NAME", "STATUS", "AGE", "TOOK")]
    for row in listed:
        took = duration(((row.ended or now) - row.created).total_seconds())
        rows.append((row.kind.title, row.name, row.status, duration((now - row.created).total_seconds()), took))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
