"""`microjobs doctor`."""

import argparse
from collections.abc import Iterable

from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.doctor import machine
from microjobs_orchestrator.doctor.finding import Finding
from microjobs_orchestrator.local.home import Home

STATUS_SYMBOLS = {"ok": "✓", "note": "•", "problem": "✗", "unknown": "?"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add(parser, all_settings=True)


def call(options: argparse.Namespace) -> int:
    home, has_problem = Home.from_environment(), False
    uses_aws = flags.uses_aws(options)
    for finding in _examine_account(options, home) if uses_aws else machine.examine(home):
        has_problem = has_problem or finding.level == "problem"
        print(f"{STATUS_SYMBOLS[finding.level]} {finding.message}", flush=True)
        if finding.remedy:
            print(f"    → {finding.remedy}")
    return 1 if has_problem else 0


def _examine_account(options: argparse.Namespace, home: Home) -> Iterable[Finding]:
    from microjobs_orchestrator.doctor import account  # this module imports boto3

    return account.examine(flags.load_settings(options), home)
