"""What git says of the tree that images are built from."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from orchestrator.failures import LauncherError

BUILT_FROM = ("containers/", "shared/")
"""Folders whose files get into images, whether git knows them or not."""


@dataclass(frozen=True)
class Source:
    """A tree, as git sees it."""

    head: str
    """The commit's hash, all 40 digits."""
    changes: tuple[str, ...] = ()
    """Files that differ from it, or that it does not have and images may."""


def read_source(repository: Path) -> Source:
    """Look at a repository.

    Raises:
        LauncherError: it is none, or has no commit.
    """
    head = _git(repository, "rev-parse", "HEAD").strip()
    lines = _git(repository, "status", "--porcelain", "--untracked-files=all").splitlines()
    return Source(head, tuple(line[3:] for line in lines if line[:2] != "??" or line[3:].startswith(BUILT_FROM)))


def _git(repository: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise LauncherError("git is not installed: images are tagged by git's revision, so install it") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise LauncherError(
            f"git cannot say the revision of {repository}: {said[0] if said else error}; push from a clone"
        ) from error
    return answer.stdout
