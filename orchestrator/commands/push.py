"""`microjobs push [JOB…]`."""

import argparse
from dataclasses import replace

from rich.console import Console

from microjobs_orchestrator import images
from microjobs_orchestrator.aws import settings
from microjobs_orchestrator.aws.backend import add_region, find_credentials_problems
from microjobs_orchestrator.commands import completion
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push.destination import Destination
from microjobs_orchestrator.push.push import PushOptions, push
from microjobs_orchestrator.registry_logins import parse_ecr_region

EXAMPLES = """examples:
  microjobs push
  microjobs push serve --profile research --region eu-west-1
  microjobs push --registry registry.example.com/team
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    add = parser.add_argument
    jobs = add("jobs", nargs="*", metavar="JOB", help="such as serve (default: all)")
    completion.set_completer(jobs, completion.list_image_jobs)
    add("--variant", choices=("cpu", "cuda"), default="cpu", help="`cuda` for images that use GPUs (default: cpu)")
    add(
        "--registry",
        metavar="HOST[/PREFIX]",
        help="target (default: `registry` in [aws] of microjobs.toml, or the account's ECR)",
    )
    add("--allow-dirty", action="store_true", help="also push images that match no commit, with `dirty` in their tags")
    add("--region", metavar="R", help="region of ECR (default: from microjobs.toml, or from boto3's settings)")
    add("--profile", metavar="P", help="profile of ~/.aws/config (default: from microjobs.toml, or boto3's)")


def call(options: argparse.Namespace) -> int:
    # Progress goes to stderr: stdout has only the URIs with digests, one per line.
    for pushed_image in push(
        make_push_options(options), Home.from_environment(), Console(stderr=True, highlight=False)
    ):
        print(pushed_image.uri)
    return 0


def make_push_options(options: argparse.Namespace) -> PushOptions:
    """Return the options of a push: those that flags set, and the others from [aws] of microjobs.toml.

    `microjobs run --on aws` reads the same settings, so that it finds the pushed images.
    """
    defaults = settings.load()
    images.select_jobs(options.jobs, options.variant)  # this call reports a wrong name even without an account
    registry = options.registry or defaults.registry or None
    region, profile = options.region, options.profile
    host_region = parse_ecr_region(Destination.parse(registry).host) if registry else None
    if registry is None or host_region:
        profile = profile or defaults.profile
        region = region or host_region or defaults.region
        completed_settings = add_region(replace(defaults, region=region, profile=profile))
        settings.raise_problems(
            [*settings.find_region_problems(completed_settings), *find_credentials_problems(completed_settings)]
        )
        region = completed_settings.region
        if registry is None and completed_settings.account:
            registry = str(completed_settings.destination)
    return PushOptions(
        jobs=options.jobs,
        registry=registry,
        allow_dirty=options.allow_dirty,
        region=region,
        profile=profile,
        variant=options.variant,
    )
