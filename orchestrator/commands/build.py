"""`microjobs build [JOB…]`."""

import argparse

from microjobs_orchestrator import images
from microjobs_orchestrator.commands import completion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    jobs = parser.add_argument("jobs", nargs="*", metavar="JOB", help="such as serve (default: all)")
    completion.set_completer(jobs, completion.list_image_jobs)
    parser.add_argument(
        "--variant", choices=("cpu", "cuda"), default="cpu", help="`cuda` for images that use GPUs (default: cpu)"
    )


def call(options: argparse.Namespace) -> int:
    return 1 if images.build(options.jobs, options.variant) else 0
