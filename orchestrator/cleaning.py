"""Old runs, images, environments and homes, which `microjobs clean` lists and removes."""

import fcntl
import glob
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from docker.errors import APIError

from microjobs_orchestrator import docker_engine, images
from microjobs_orchestrator.failures import CommandError, UsageError
from microjobs_orchestrator.local import home_lock, trees
from microjobs_orchestrator.local.home import HOME_ENTRIES, Home
from microjobs_orchestrator.local.own_images import find_registry
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.runs.home_view import HomeView
from microjobs_orchestrator.runs.view import Filter

DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Removable:
    """A run, an image, a file or a folder, with its size and a function that removes it."""

    title: str
    size_bytes: int
    remove: Callable[[], None]


@contextmanager
def lock_home(home: Home) -> Iterator[None]:
    """Lock a home during the block, so that no server starts for it. The block may remove the lock file.

    Raises:
        UsageError: a server uses the home, or another process has just removed the lock file.
    """
    if not home.root.is_dir():
        yield
        return
    existed = home.lock.exists()
    with home.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"a server uses {home.root}: stop it with `microjobs local down`") from None
        if not home_lock.is_current(home, lock.fileno()):
            raise UsageError(f"another `microjobs clean` used {home.root}: try again")
        try:
            yield
        finally:
            if not existed and home_lock.is_current(home, lock.fileno()):
                home.lock.unlink()


def measure_bytes(path: Path) -> int:
    """Return the disk space of a file or a tree. Hard links count once."""
    total, counted_files, pending = 0, set[tuple[int, int]](), [path]
    while pending:  # os.walk would recurse, and the folders of jobs may have any depth
        current = pending.pop()
        try:
            status = current.lstat()
            if (file_id := (status.st_dev, status.st_ino)) not in counted_files:
                counted_files.add(file_id)
                total += status.st_blocks * 512
            if current.is_dir() and not current.is_symlink():
                pending += current.iterdir()
        except OSError:  # the file was removed during the walk, or is not readable
            continue
    return total


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a tree, if it exists."""
    if path.is_dir() and not path.is_symlink():
        trees.remove(path)
    else:
        path.unlink(missing_ok=True)


# --- runs ---


def list_old_runs(home: Home, days: float) -> list[Removable]:
    """List the runs whose journals have not changed for `days` days, with their data, models, logs, reports and jobs.

    Runs with a job that has not ended, or with an endpoint that runs or changes, are not listed.
    """
    cutoff_time = time.time() - days * DAY_SECONDS
    journals = sorted((home.root / "runs").glob("*.json"))
    old_names = [path.stem for path in journals if path.stat().st_mtime <= cutoff_time]
    return [_make_removable_run(home, name) for name in old_names if not _is_running(home, name)]


def _is_running(home: Home, name: str) -> bool:
    rows = HomeView(home).list_newest(Filter(limit=1000, name=f"{name}-", running=True))
    return any(row.name.startswith(f"{name}-") for row in rows)


def _make_removable_run(home: Home, name: str) -> Removable:
    pattern = glob.escape(name)
    paths = [home.root / "runs" / f"{name}.json", home.root / "runs" / name]
    # A bucket may be a link to a folder outside the home, whose files belong to the user and are not removed.
    paths += [path for path in home.buckets.glob(f"*/{pattern}") if not path.parent.is_symlink()]
    paths += home.logs.glob(f"aws/sagemaker/*/{pattern}-*")

    def remove() -> None:
        for path in reversed(paths):  # the journal is removed last, so that a run whose removal fails is listed again
            remove_tree(path)
        if home.state.exists():
            with closing(State(home.state)) as state:
                state.delete_with_prefix(f"{name}-")

    return Removable(name, sum(map(measure_bytes, paths)), remove)


# --- images, environments, home ---


def list_images() -> list[Removable]:
    """List the images of the ready-made jobs, with all tags.

    Raises:
        CommandError: microjobs does not run from a clone of the repository.
        docker.errors.DockerException: no engine answers.
    """
    prefixes = tuple(f"{find_registry()}/{job}:" for job in images.list_jobs())
    with closing(docker_engine.connect()) as client:
        sizes = {tag: image["Size"] for image in docker_engine.list_images(client) for tag in image["RepoTags"]}
    return [
        Removable(tag, sizes[tag], partial(_remove_image, tag)) for tag in sorted(sizes) if tag.startswith(prefixes)
    ]


def _remove_image(tag: str) -> None:
    with closing(docker_engine.connect()) as client:
        try:
            client.api.remove_image(tag)
        except APIError as error:
            raise CommandError(f"cannot remove image {tag}: {error.explanation}") from error


def list_environments(home: Home) -> list[Removable]:
    """List the virtual environments of the process runtime, and their lock files."""
    return [_make_removable(path) for path in sorted(home.environments.glob("*"))]


def list_home(home: Home) -> list[Removable]:
    """List all files of a home, and the folder itself, which is removed if it contains nothing else.

    The lock file is the last one, because a server may start as soon as this file is removed.
    """
    paths = sorted((home.root / name for name in HOME_ENTRIES), key=lambda path: path == home.lock)
    entries = [_make_removable(path) for path in paths if os.path.lexists(path)]
    if [entry.title for entry in entries] == [str(home.lock)] and not home.lock.stat().st_size:
        return []  # `lock_home` has just created this file, and removes it
    return [*entries, Removable(str(home.root), 0, lambda: _remove_if_empty(home.root))] if entries else []


def _make_removable(path: Path) -> Removable:
    return Removable(str(path), measure_bytes(path), lambda: remove_tree(path))


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
