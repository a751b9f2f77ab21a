"""The images that were pushed, by their digests: what ran is known, whatever becomes of tags."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.failures import LauncherError, UsageError

Images = dict[str, str]
"""Addresses with digests, by job."""


def pushed(file: Path, registry: str) -> Images:
    """What was pushed to a registry.

    Args:
        file: `microjobs push`'s record, `{registry: {job: {"uri": "REPOSITORY@sha256:…", …}}}`.
        registry: such as `123456789012.dkr.ecr.us-east-1.amazonaws.com`.

    Raises:
        LauncherError: the file is damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {job: str(entry["uri"]) for job, entry in content.get(registry, {}).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LauncherError(f"{file} is damaged ({error}): remove it, and `microjobs push` again") from error


def need(images: Images, jobs: Iterable[str], registry: str) -> Callable[[str], str]:
    """The address of a job's image, when those of all these jobs are known.

    Raises:
        UsageError: some were not pushed, with the command that does it.
    """
    if missing := [job for job in jobs if job not in images]:
        raise UsageError(f"no image of {', '.join(missing)} was pushed to {registry}: `microjobs push`")
    return images.__getitem__


def planned(images: Images, registry: str) -> Callable[[str], str]:
    """The address of a job's image; by its name alone where no digest is known yet."""
    return lambda job: images.get(job, f"{registry}/microjobs/{job}:dev")
