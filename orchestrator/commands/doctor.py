"""`microjobs doctor`."""

import argparse
from typing import TYPE_CHECKING

from microjobs_orchestrator.aws import flags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from microjobs_orchestrator.commands import Subparsers
    from microjobs_orchestrator.doctor.finding import Finding

SIGNS = {"ok": "✓", "note": "•", "problem": "✗", "unknown": "?"}


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("doctor", help="check this machine, or an AWS account, and show how to fix problems")
    flags.add(parser, requests=True)
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    has_problem = False
    for finding in findings(options):
        has_problem = has_problem or finding.level == "problem"
        print(f"{SIGNS[finding.level]} {finding.message}", flush=True)
        if finding.remedy:
            print(f"    → {finding.remedy}")
    return 1 if has_problem else 0


def findings(options: argparse.Namespace) -> "Iterator[Finding]":
    from microjobs_orchestrator.doctor import account, machine
    from microjobs_orchestrator.local.home import Home

    home = Home.from_environment()
    if flags.on_aws(options):
        return account.examine(flags.load_settings(options), home)
    return machine.examine(home)
