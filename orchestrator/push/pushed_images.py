"""Digests of pushed images, in `.microjobs/images.json`. Requests name images by digest, which cannot change."""

import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from microjobs.files import write_text
from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push.destination import Destination


@dataclass(frozen=True)
class PushedImage:
    uri: str
    """`REPOSITORY@sha256:…`."""
    tag: str
    revision: str
    """The commit of the image's revision label."""
    image: str
    """The image's ID in the engine that pushed it."""
    time: str
    """The time of the push in UTC, in the format of ISO 8601."""


def load(home: Home) -> dict[str, dict[str, PushedImage]]:
    """Return all pushed images by registry (the text of a `Destination`) and by the job that they run, such as `serve`.

    Raises:
        CommandError: the file is damaged.
    """
    path = _get_file_path(home)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            registry: {job: PushedImage(**item) for job, item in jobs.items()} for registry, jobs in content.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise CommandError(f"{path} is damaged ({error}): remove it, then `microjobs push` writes a new one") from error


def save(home: Home, destination: Destination, job: str, pushed_image: PushedImage) -> None:
    """Record the pushed image of a job such as `serve`, in place of the record of the job's earlier image in this
    registry. Concurrent pushes may call this function."""
    with (home.root / ".images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = load(home)
        content.setdefault(str(destination), {})[job] = pushed_image
        plain = {registry: {name: asdict(item) for name, item in jobs.items()} for registry, jobs in content.items()}
        write_text(_get_file_path(home), json.dumps(plain, indent=1, sort_keys=True))


def _get_file_path(home: Home) -> Path:
    return home.root / "images.json"
