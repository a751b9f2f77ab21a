"""`microjobs push [JOB…]`."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.commands import Subparsers

EXAMPLES = """examples:
  microjobs push
  microjobs push serve --profile research --region eu-west-1
  microjobs push --registry registry.example.com/team
"""


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "push",
        help="push the images of jobs to ECR or another registry, and print their digests",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("jobs", nargs="*", metavar="JOB", help="such as serve (default: all)")
    add("--variant", choices=("cpu", "cuda"), default="cpu", help="for GPUs: cuda (default: cpu)")
    add("--registry", metavar="HOST[/PREFIX]", help="where (default: the account's ECR; prefix microjobs)")
    add("--allow-dirty", action="store_true", help="also what no commit stands for, under a tag that says so")
    add("--region", metavar="R", help="of ECR (default: as boto3 finds it)")
    add("--profile", metavar="P", help="of ~/.aws/config (default: as boto3 finds it)")
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    from rich.console import Console

    from orchestrator.local.home import Home
    from orchestrator.push.push import Request, push

    request = Request(
        options.jobs, options.registry, options.allow_dirty, options.region, options.profile, options.variant
    )
    # What is under way goes to stderr: stdout is the digests, one a line.
    for pushed in push(request, Home.from_environment(), Console(stderr=True, highlight=False)):
        print(pushed.uri)
    return 0
