"""What was pushed, in `.microjobs/images.json`: requests name images by these digests, so that what ran is known."""

import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from microjobs.files import write_text
from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push.plan import Destination


@dataclass(frozen=True)
class Pushed:
    """An image in a registry."""

    uri: str
    """`REPOSITORY@sha256:…`."""
    tag: str
    revision: str
    """The commit that it was built from, as its label says."""
    image: str
    """Its id in the engine that pushed it."""
    time: str
    """When, in UTC, as ISO 8601 says it."""


def read(home: Home) -> dict[str, dict[str, Pushed]]:
    """All that was pushed, by registry (a `Destination` as text) and job.

    Raises:
        LauncherError: the file is damaged.
    """
    path = _path(home)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {place: {job: Pushed(**item) for job, item in jobs.items()} for place, jobs in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise LauncherError(f"{path} is damaged ({error}): remove it, then `microjobs push` writes it anew") from error


def note(home: Home, destination: Destination, job: str, pushed: Pushed) -> None:
    """Write down what was pushed, in place of what was before. Several pushes may do so at once."""
    with (home.root / ".images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = read(home)
        content.setdefault(str(destination), {})[job] = pushed
        plain = {place: {name: asdict(item) for name, item in jobs.items()} for place, jobs in content.items()}
        write_text(_path(home), json.dumps(plain, indent=1, sort_keys=True))


def _path(home: Home) -> Path:
    return home.root / "images.json"
