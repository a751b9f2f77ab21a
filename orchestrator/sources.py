"""The files that an image is built from, and their state in git. Other files of the repository are ignored.

This module needs only the standard library, because `make build` runs it before anything is installed.
"""

from __future__ import annotations  # `make build` may run this module with an older Python

import re
import subprocess
from pathlib import Path

UNKNOWN_REVISION = "unknown"
"""The revision label of images that are built without git."""

COMMIT_PATTERN = re.compile(r"[0-9a-f]{7,64}")

SHARED_PATHS = (".dockerignore", ":(glob)containers/*", "containers/bin", "containers/fallback", "shared")
EXCLUDED_PATHS = (":!*.md", ":!*/tests/*", ":!*.in", ":!shared/microjobs/local.py")


def list_pathspecs(job: str, variant: str = "cpu") -> list[str]:
    """Return git pathspecs of an image's own files and of the shared files."""
    job_paths = [f"containers/{job}", *(["docker-compose.cuda.yml"] if variant == "cuda" else [])]
    return [*job_paths, *SHARED_PATHS, *EXCLUDED_PATHS]


def read_head(repository: Path) -> str:
    """Return the hash of the commit at HEAD. Raises the same errors as `list_uncommitted_files`."""
    return _run_git(repository, "rev-parse", "HEAD").strip()


def list_uncommitted_files(repository: Path, job: str, variant: str = "cpu") -> list[str]:
    """Return the image's files that differ from HEAD, or that HEAD does not have.

    Raises:
        OSError: git is not installed.
        subprocess.CalledProcessError: git fails.
    """
    output = _run_git(repository, "status", "--porcelain", "--untracked-files=all", "--", *list_pathspecs(job, variant))
    return [line[3:] for line in output.splitlines()]


def list_changed_files(
    repository: Path, job: str, variant: str, old_revision: str, *, new_revision: str | None = None
) -> list[str] | None:
    """Return the image's files that differ between two revisions; None if the repository lacks a revision.

    Args:
        new_revision: by default, the working tree is compared with `old_revision`.

    Raises:
        OSError: git is not installed.
    """
    if not COMMIT_PATTERN.fullmatch(old_revision):  # a label may contain any text, even an option of git
        return None
    revisions = [old_revision] if new_revision is None else [old_revision, new_revision]
    try:
        return _run_git(repository, "diff", "--name-only", *revisions, "--", *list_pathspecs(job, variant)).splitlines()
    except subprocess.CalledProcessError:
        return None


def read_revision(repository: Path, job: str, variant: str = "cpu") -> str:
    """Return the commit at HEAD, with `-dirty` if the image's files have changes; UNKNOWN_REVISION if git fails."""
    try:
        return read_head(repository) + ("-dirty" if list_uncommitted_files(repository, job, variant) else "")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN_REVISION


def describe_head(repository: Path) -> str:
    """Return the short hash of the commit at HEAD, with `-dirty` for changes; empty if the folder is not a clone."""
    if not (repository / ".git").exists():  # git would describe a repository that contains this folder
        return ""
    try:
        return _run_git(repository, "describe", "--always", "--dirty", "--exclude=*").strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _run_git(repository: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
