"""The files that an image is made of, and what git says of them: other files of the repository do not count.

Standard library only, because `make build` needs it before anything is installed.
"""

from __future__ import annotations  # `make build` may run it with an older Python

import re
import subprocess
from pathlib import Path

UNKNOWN = "unknown"
"""The revision of a tree without git, as images have it in their label."""

COMMIT = re.compile(r"[0-9a-f]{7,64}")

SHARED = (".dockerignore", ":(glob)containers/*", "containers/bin", "containers/fallback", "shared")
NOT_IN_IMAGES = (":!*.md", ":!*/tests/*", ":!*.in")


def paths(job: str, variant: str = "cpu") -> list[str]:
    """Return the paths of an image's own files and of the shared ones, as git takes them."""
    own = [f"containers/{job}", *(["docker-compose.cuda.yml"] if variant == "cuda" else [])]
    return [*own, *SHARED, *NOT_IN_IMAGES]


def head(repository: Path) -> str:
    """Return the hash of the commit at HEAD; raises as `uncommitted`."""
    return _git(repository, "rev-parse", "HEAD").strip()


def uncommitted(repository: Path, job: str, variant: str = "cpu") -> list[str]:
    """Return the image's files that differ from HEAD, or that no commit has.

    Raises:
        OSError: git is not installed.
        subprocess.CalledProcessError: git refuses.
    """
    said = _git(repository, "status", "--porcelain", "--untracked-files=all", "--", *paths(job, variant))
    return [line[3:] for line in said.splitlines()]


def changed_since(repository: Path, job: str, variant: str, old: str, *, new: str | None = None) -> list[str] | None:
    """Return the image's files that differ from a revision; None if the repository does not have it.

    Args:
        new: the revision to compare; the working tree if it is None.

    Raises:
        OSError: git is not installed.
    """
    if not COMMIT.fullmatch(old):  # the label of an image may hold anything, an option of git's too
        return None
    compared = [old] if new is None else [old, new]
    try:
        return _git(repository, "diff", "--name-only", *compared, "--", *paths(job, variant)).splitlines()
    except subprocess.CalledProcessError:
        return None


def revision(repository: Path, job: str, variant: str = "cpu") -> str:
    """Return the commit at HEAD, with `-dirty` if it does not have the image's files as they are now."""
    try:
        return head(repository) + ("-dirty" if uncommitted(repository, job, variant) else "")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
