"""`microjobs push [JOB…]`."""

import argparse
from typing import TYPE_CHECKING

from microjobs_orchestrator.commands.completion import complete, images

if TYPE_CHECKING:
    from microjobs_orchestrator.commands import Subparsers
    from microjobs_orchestrator.push.push import Request

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
    complete(add("jobs", nargs="*", metavar="JOB", help="such as serve (default: all)"), images)
    add("--variant", choices=("cpu", "cuda"), default="cpu", help="for GPUs: cuda (default: cpu)")
    add(
        "--registry",
        metavar="HOST[/PREFIX]",
        help="where (default: as `registry` in [aws] of microjobs.toml, or the account's ECR)",
    )
    add("--allow-dirty", action="store_true", help="also what no commit stands for, under a tag that says so")
    add("--region", metavar="R", help="of ECR (default: of microjobs.toml, or as boto3 finds it)")
    add("--profile", metavar="P", help="of ~/.aws/config (default: of microjobs.toml, or as boto3 finds it)")
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    from rich.console import Console

    from microjobs_orchestrator.local.home import Home
    from microjobs_orchestrator.push.push import push

    request = _request(options)
    # What is under way goes to stderr: stdout is the digests, one a line.
    for pushed in push(request, Home.from_environment(), Console(stderr=True, highlight=False)):
        print(pushed.uri)
    return 0


def _request(options: argparse.Namespace) -> "Request":
    """The flags, over [aws] of microjobs.toml: images go where `microjobs run --on aws` takes them from.

    Raises:
        UsageError: ECR is to be asked, and region or credentials are missing.
    """
    from dataclasses import replace

    from microjobs_orchestrator import images
    from microjobs_orchestrator.aws import settings
    from microjobs_orchestrator.aws.backend import credentials_problems, with_region
    from microjobs_orchestrator.push import ecr
    from microjobs_orchestrator.push.plan import Destination
    from microjobs_orchestrator.push.push import Request

    known = settings.read()
    images.chosen(options.jobs, options.variant)  # a wrong name needs no account
    registry = options.registry or known.registry or None
    region, profile = options.region, options.profile
    host_region = ecr.region_of(Destination.parse(registry).host) if registry else None
    if registry is None or host_region:
        profile = profile or known.profile
        region = region or host_region or known.region
        found = with_region(replace(known, region=region, profile=profile))
        settings.refuse([*settings.region_problems(found), *credentials_problems(found)])
        region = found.region
        if registry is None and found.account:
            registry = str(found.destination)
    return Request(options.jobs, registry, options.allow_dirty, region, profile, options.variant)
