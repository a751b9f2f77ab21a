"""The state of the files that an image is built from, from git."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator import sources
from microjobs_orchestrator.failures import LauncherError


@dataclass(frozen=True)
class Source:
    """The files of one image in a repository."""

    head: str
    """The hash of the commit at HEAD, all 40 digits."""
    changes: tuple[str, ...] = ()
    """Files that differ from HEAD or that HEAD does not have."""
    since: tuple[str, ...] | None = ()
    """Files that differ between the image's revision and HEAD; None if the repository does not have the revision."""


def read_source(repository: Path, job: str, variant: str, revision: str) -> Source:
    """Read the state of the files of an image that was built from a revision.

    Raises:
        LauncherError: the folder is not a git repository, or has no commit.
    """
    try:
        head = sources.head(repository)
        changes = sources.uncommitted(repository, job, variant)
        since = sources.changed_since(repository, job, variant, revision.removesuffix("-dirty"), new=head)
    except FileNotFoundError:
        raise LauncherError("git is not installed: install it, because the tags of images contain revisions") from None
    except subprocess.CalledProcessError as error:
        reason = next(iter(error.stderr.strip().splitlines()), str(error))
        raise LauncherError(f"git cannot read the revision of {repository}: {reason}; push from a clone") from error
    return Source(head, tuple(changes), None if since is None else tuple(since))
