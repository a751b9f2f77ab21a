"""What git says of the files that an image is built from."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator import sources
from microjobs_orchestrator.failures import LauncherError


@dataclass(frozen=True)
class Source:
    """The files of one image, as git sees them."""

    head: str
    """The commit's hash, all 40 digits."""
    changes: tuple[str, ...] = ()
    """Files that differ from HEAD, or that it does not have."""
    since: tuple[str, ...] | None = ()
    """Files that HEAD has differently from the image's revision; None if the repository does not have that one."""


def read_source(repository: Path, job: str, variant: str, revision: str) -> Source:
    """Look at a repository for an image that was built from a revision.

    Raises:
        LauncherError: it is none, or has no commit.
    """
    try:
        head = sources.head(repository)
        changes = sources.uncommitted(repository, job, variant)
        since = sources.changed_since(repository, job, variant, revision.removesuffix("-dirty"), new=head)
    except FileNotFoundError:
        raise LauncherError("git is not installed: images are tagged by git's revision, so install it") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise LauncherError(
            f"git cannot say the revision of {repository}: {said[0] if said else error}; push from a clone"
        ) from error
    return Source(head, tuple(changes), None if since is None else tuple(since))
