"""The images of this repository's jobs. How they are built stands in the Makefile and is called from here."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from microjobs_orchestrator import sources
from microjobs_orchestrator.failures import LauncherError, UsageError

REPOSITORY = Path(__file__).resolve().parent.parent
PLATFORM = "linux/amd64"
"""The platform of SageMaker's instances."""
REVISION = "org.opencontainers.image.revision"
VARIANT = "org.microjobs.variant"
"""`cpu` or `cuda`."""


def local_image(job: str, variant: str = "cpu") -> str:
    """Return the name that `make build` gives the image of a job."""
    suffix = "" if variant == "cpu" else f"-{variant}"
    return f"{os.environ.get('REGISTRY') or 'microjobs'}/{job}:{os.environ.get('TAG') or 'dev'}{suffix}"


def jobs() -> list[str]:
    """The jobs, discovered: every folder that says how its image is made.

    Raises:
        LauncherError: this is not the repository, but an installed package.
    """
    found = sorted(path.parent.name for path in (REPOSITORY / "containers").glob("*/image.yml"))
    if not found:
        raise LauncherError(f"{REPOSITORY} has no containers folder: run microjobs from a clone of the repository")
    return found


def jobs_with(variant: str) -> list[str]:
    """The jobs that have a variant: all have `cpu`, those with a lock for it `cuda`."""
    return [job for job in jobs() if variant == "cpu" or (REPOSITORY / "containers" / job / f"{variant}.lock").exists()]


def chosen(names: Sequence[str], variant: str = "cpu") -> list[str]:
    """The jobs named, each once; all of a variant if none is.

    Raises:
        UsageError: there is no such job, or not in this variant.
    """
    known = jobs_with(variant)
    if unknown := [name for name in names if name not in known]:
        word = "job" if variant == "cpu" else f"{variant} variant of"
        raise UsageError(f"no {word} {', '.join(unknown)}: there are {', '.join(known)}")
    return list(dict.fromkeys(names)) or known


def build(names: Sequence[str], variant: str = "cpu") -> int:
    """Build the images of some jobs, or all; make's exit code.

    Raises:
        UsageError: there is no such job.
        LauncherError: make is not installed.
    """
    targets = [f"build/{name}" for name in chosen(names, variant)]
    command = ["make", "--no-print-directory", f"VARIANT={variant}", *targets]
    try:
        return subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    except FileNotFoundError:
        raise LauncherError("make is not installed: install it, or build with `docker compose build`") from None


def missing(names: Iterable[str]) -> list[str]:
    """Which of some jobs have no image.

    Raises:
        docker.errors.DockerException: no engine answers.
    """
    there = labels()
    return [name for name in names if local_image(name) not in there]


def labels() -> dict[str, dict[str, str]]:
    """The labels of each image that the engine has, by its name."""
    from microjobs_orchestrator import docker_engine

    client = docker_engine.connect()
    try:
        listed = client.api.images()  # all in one answer: an image may be removed before it is asked for by itself
        return {tag: image.get("Labels") or {} for image in listed for tag in image.get("RepoTags") or ()}
    finally:
        client.close()


def changed_since(job: str, revision: str) -> bool | None:
    """Whether the files of a job's image differ from those of a revision; None if that cannot be known."""
    try:
        found = sources.changed_since(REPOSITORY, job, "cpu", revision)
    except FileNotFoundError:
        return None
    return None if found is None else bool(found)
