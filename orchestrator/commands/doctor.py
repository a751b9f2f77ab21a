"""`microjobs doctor`."""

import argparse

from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.doctor import account, machine
from microjobs_orchestrator.local.home import Home

SIGNS = {"ok": "✓", "note": "•", "problem": "✗", "unknown": "?"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add(parser, requests=True)


def call(options: argparse.Namespace) -> int:
    home, has_problem = Home.from_environment(), False
    on_aws = flags.on_aws(options)
    for finding in account.examine(flags.load_settings(options), home) if on_aws else machine.examine(home):
        has_problem = has_problem or finding.level == "problem"
        print(f"{SIGNS[finding.level]} {finding.message}", flush=True)
        if finding.remedy:
            print(f"    → {finding.remedy}")
    return 1 if has_problem else 0
