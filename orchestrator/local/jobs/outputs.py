"""From what hosts left to objects: several hosts' folders merged, archives packed, everything whole or not at all."""

import filecmp
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchestrator.local.runtimes.base import Host
from orchestrator.local.s3.keys import parse_uri
from orchestrator.local.s3.store import ObjectStore

Note = Callable[[str], None]
"""Takes a sentence for the user, who finds it in the job's log."""


def gather(hosts: Sequence[Host], path: str, to: Path, note: Note) -> Path:
    """What all hosts have at a path of the contract, in one folder.

    Where several have a file of the same name, the first host's is taken; if they differ, the user is told.
    """
    shutil.rmtree(to, ignore_errors=True)  # what there is of a server that was killed
    to.mkdir(parents=True)
    for host in hosts:
        part = to.with_name(f"{to.name}.{host.name}")
        if host.copy(path, part):
            _merge(part, to, host.name, note)
        shutil.rmtree(part, ignore_errors=True)
    return to


def _merge(part: Path, to: Path, host: str, note: Note) -> None:
    for source in list(_entries(part)):
        inside = source.relative_to(part)
        target = to / inside
        if any((to / parent).is_symlink() for parent in inside.parents):  # it may lead anywhere now
            note(f"{inside} of {host} was left out: another host has a link where it needs a folder")
            continue
        if target.is_symlink() or target.exists():
            if not _same(source, target):
                note(f"{inside} of {host} differs from another host's and was left out: give files names of their own")
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            note(f"{inside} of {host} was left out: another host has a file where it needs a folder")
            continue
        source.rename(target)


def _entries(folder: Path) -> Iterator[Path]:
    """Files, links and empty folders, in the order of their names."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and any(path.iterdir()):
            yield from _entries(path)
        else:
            yield path


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    return (one.is_dir() and other.is_dir()) or (
        one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)
    )


def files(folder: Path) -> list[Path]:
    """The files below a folder, links left out: SageMaker does not follow them."""
    return [path for path in _entries(folder) if path.is_file() and not path.is_symlink()]


def upload(store: ObjectStore, folder: Path, uri: str) -> None:
    """Make every file below a folder an object below a prefix. All names are checked before the first one moves."""
    bucket, prefix = parse_uri(uri)
    keys = {path: join(prefix, path.relative_to(folder).as_posix()) for path in files(folder)}
    for key in keys.values():
        store.check(bucket, key)
    for path, key in keys.items():
        store.adopt(bucket, key, path)


def upload_archive(store: ObjectStore, folder: Path, uri: str) -> None:
    """Make one object, a tar.gz, of all that a folder holds."""
    bucket, key = parse_uri(uri)
    archive = folder.with_name(folder.name + ".tar.gz")
    # Level 1: weights hardly compress, and the user waits for it.
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    store.adopt(bucket, key, archive)


def join(prefix: str, name: str) -> str:
    """A key below a prefix; a prefix that does not end with `/` is a folder all the same."""
    return f"{prefix.rstrip('/')}/{name}" if prefix else name
