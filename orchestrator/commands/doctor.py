"""`microjobs doctor`."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.commands import Subparsers

SIGNS = {"well": "✓", "note": "•", "mend": "✗"}


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("doctor", help="look at this machine, and say what mends what is wrong")
    parser.set_defaults(call=call)


def call(_options: argparse.Namespace) -> int:
    from orchestrator import doctor
    from orchestrator.local.home import Home

    ill = False
    for finding in doctor.examine(Home.from_environment()):
        ill = ill or finding.level == "mend"
        print(f"{SIGNS[finding.level]} {finding.message}", flush=True)
        if finding.remedy:
            print(f"    → {finding.remedy}")
    return 1 if ill else 0
