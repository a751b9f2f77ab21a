"""`microjobs doctor`."""

import argparse
from typing import TYPE_CHECKING

from microjobs_orchestrator.aws import flags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from microjobs_orchestrator.commands import Subparsers
    from microjobs_orchestrator.doctor import Finding

SIGNS = {"well": "✓", "note": "•", "mend": "✗", "unknown": "?"}


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("doctor", help="look at this machine, or at AWS, and say what mends what is wrong")
    flags.add(parser, requests=True)
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    ill = False
    for finding in findings(options):
        ill = ill or finding.level == "mend"
        print(f"{SIGNS[finding.level]} {finding.message}", flush=True)
        if finding.remedy:
            print(f"    → {finding.remedy}")
    return 1 if ill else 0


def findings(options: argparse.Namespace) -> "Iterator[Finding]":
    from microjobs_orchestrator import doctor
    from microjobs_orchestrator.aws import checks
    from microjobs_orchestrator.local.home import Home

    home = Home.from_environment()
    if flags.on_aws(options):
        return checks.examine(flags.chosen(options), home)
    return doctor.examine(home)
