"""Builds the images of a workflow before it runs (`microjobs run --build`).

If the engine cannot get the base image, the jobs run in images that were built before. If one of these images is
missing, all jobs run as processes; if the runtime is `docker`, the command fails instead.
"""

import os
import re
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from docker.errors import DockerException, ImageNotFound
from rich.console import Console

from microjobs_orchestrator import docker_engine, images
from microjobs_orchestrator.failures import CommandError

if TYPE_CHECKING:
    from docker import DockerClient

AIR_GAPPED_REMEDY = 'docs/maintaining/building.md, "Air-gapped", describes builds without a registry'


def build_and_choose_runtime(runtime: str, jobs: Sequence[str], console: Console) -> str:
    """Build the images of some jobs, and return the runtime that can run these jobs.

    Args:
        runtime: `auto`, `docker` or `process`.

    Raises:
        CommandError: a build failed. Or the engine cannot get the base image, an image is missing, and the runtime is
            `docker`.
    """
    if runtime == "process":
        return runtime
    try:
        client = docker_engine.connect()
    except DockerException:
        return runtime  # the local server then chooses processes, or reports the missing engine
    with closing(client):
        problem = pull_base_image(client, console)
    if problem is None:
        if images.build(jobs) != 0:
            raise CommandError(
                "the images were not built: see the messages above; `microjobs doctor` checks what is missing"
            )
        return runtime
    if not images.find_missing(jobs):
        console.print(f"{problem}; the jobs use the images that were built before", soft_wrap=True)
        return runtime
    if runtime == "docker":
        raise CommandError(f"{problem}; {AIR_GAPPED_REMEDY}, and --runtime process needs no images")
    console.print(f"{problem}; the jobs run as processes. {AIR_GAPPED_REMEDY}", soft_wrap=True)
    return "process"


def get_base_image_name() -> str:
    """Return the name of the base image: PYTHON_IMAGE, or the default of `containers/Dockerfile`."""
    dockerfile = (images.REPOSITORY / "containers" / "Dockerfile").read_text(encoding="utf-8")
    default = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile, re.MULTILINE)[0]
    return os.environ.get("PYTHON_IMAGE") or str(default)


def pull_base_image(client: "DockerClient", console: Console) -> str | None:
    """Pull the base image unless the engine has it; return the problem in one line, or None."""
    name = get_base_image_name()
    with suppress(ImageNotFound):
        client.images.get(name)
        return None
    console.print(f"Pulling {name}", soft_wrap=True)
    try:
        client.images.pull(name, platform=images.PLATFORM)
    except DockerException as error:
        cause = str(getattr(error, "explanation", None) or error).splitlines()[0]
        return f"The Docker engine cannot pull {name} ({cause})"
    return None
