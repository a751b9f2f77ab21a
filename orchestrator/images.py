"""The images of the ready-made jobs. The Makefile builds them."""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from microjobs_orchestrator import sources
from microjobs_orchestrator.failures import CommandError, UsageError
from microjobs_orchestrator.local import own_images

REPOSITORY = Path(__file__).resolve().parent.parent
PLATFORM = "linux/amd64"
"""The platform of SageMaker's instances."""
REVISION_LABEL = "org.opencontainers.image.revision"
VARIANT_LABEL = "org.microjobs.variant"
"""`cpu` or `cuda`."""


def get_local_image_name(job: str, variant: str = "cpu") -> str:
    """Return the name that `make build` gives the image of a job."""
    return own_images.format_name(job, variant)


def list_jobs() -> list[str]:
    """Return the names of the ready-made jobs, such as `serve`: the folders with an `image.yml`.

    Raises:
        CommandError: the package is installed without the repository.
    """
    names = sorted(path.parent.name for path in (REPOSITORY / "containers").glob("*/image.yml"))
    if not names:
        raise CommandError(f"{REPOSITORY} has no containers folder: run microjobs from a clone of the repository")
    return names


def list_jobs_with_variant(variant: str) -> list[str]:
    """Return the jobs that have a variant. All jobs have `cpu`; jobs with a file `cuda.lock` also have `cuda`."""
    return [
        job for job in list_jobs() if variant == "cpu" or (REPOSITORY / "containers" / job / f"{variant}.lock").exists()
    ]


def select_jobs(names: Sequence[str], variant: str = "cpu") -> list[str]:
    """Return the named jobs without duplicates, or all jobs of the variant if no job is named.

    Raises:
        UsageError: a job does not exist, or does not have this variant.
    """
    known_jobs = list_jobs_with_variant(variant)
    if unknown := [name for name in names if name not in known_jobs]:
        word = "job" if variant == "cpu" else f"{variant} variant of"
        raise UsageError(f"no {word} {', '.join(unknown)} exists: choose from {', '.join(known_jobs)}")
    return list(dict.fromkeys(names)) or known_jobs


def build(names: Sequence[str], variant: str = "cpu") -> int:
    """Build the images of the named jobs, or of all jobs, and return make's exit code.

    Raises:
        UsageError: a job does not exist, or does not have this variant.
        CommandError: make is not installed.
    """
    targets = [f"build/{name}" for name in select_jobs(names, variant)]
    command = ["make", "--no-print-directory", f"VARIANT={variant}", *targets]
    try:
        return subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    except FileNotFoundError:
        raise CommandError("make is not installed: install it, or build with `docker compose build`") from None


def find_missing(names: Iterable[str]) -> list[str]:
    """Return the jobs whose images are not built.

    Raises:
        docker.errors.DockerException: no engine answers.
    """
    labels = read_image_labels()
    return [name for name in names if get_local_image_name(name) not in labels]


def read_image_labels() -> dict[str, dict[str, str]]:
    """Return the labels of the engine's images, by the name of the image."""
    from microjobs_orchestrator import docker_engine

    with closing(docker_engine.connect()) as client:
        images = docker_engine.list_images(client)
    return {tag: image.get("Labels") or {} for image in images for tag in image["RepoTags"]}


def is_stale(job: str, labels: Mapping[str, str]) -> bool:
    """Return whether an image was built from other files than the repository has now; False if git cannot tell."""
    revision = labels.get(REVISION_LABEL, "").removesuffix("-dirty")
    try:
        return bool(sources.list_changed_files(REPOSITORY, job, "cpu", revision))
    except FileNotFoundError:
        return False
