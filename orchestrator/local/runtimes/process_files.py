"""Files of a host: given to it, copied from it, removed with it."""

import contextlib
import logging
import os
import shutil
from pathlib import Path

from orchestrator.local.runtimes import process_keeper

logger = logging.getLogger(__name__)

_CHUNK = 1 << 30


def give(source: Path, target: Path) -> None:
    """Copy a tree so that who writes into the copy does not change the source; what is there already is merged."""
    shutil.copytree(source, target, symlinks=True, copy_function=clone, dirs_exist_ok=True)


def clone(source: str, target: str) -> None:
    """Copy a file's content; file systems that can share it until one side is written to do so."""
    with open(source, "rb") as reader, open(target, "wb") as writer:  # noqa: PTH123  copytree gives strings
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), _CHUNK):
                pass
        except OSError:  # two file systems, or one that cannot
            for file in (reader, writer):
                file.seek(0)
            shutil.copyfileobj(reader, writer, 1 << 20)
        # Programs stay programs, and the copy is the job's to write.
        os.fchmod(writer.fileno(), os.fstat(reader.fileno()).st_mode & 0o777 | 0o600)


def protect(folder: Path) -> None:
    """Take the right to write into a tree from everybody; root does not ask for it."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)


def take(source: Path, to: Path, *, link: bool) -> bool:
    """Copy what a folder holds, or a file, into the folder `to`; False if there is nothing.

    Links stay links if they lead to something inside; others, pipes and the like are left out, with a warning. What
    vanishes meanwhile is left out too.

    Args:
        link: nobody writes any more, so hard links do instead of copies.
    """
    if not os.path.lexists(source):
        return False
    is_folder = source.is_dir() and not source.is_symlink()
    top = source if is_folder else source.parent
    to.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir() if is_folder else [source]:
        _take(entry, to / entry.name, top, link)
    return True


def _take(entry: Path, target: Path, top: Path, link: bool) -> None:
    with contextlib.suppress(FileNotFoundError):
        if entry.is_symlink():
            _take_symlink(entry, target, top)
        elif entry.is_dir():
            target.mkdir(exist_ok=True)
            for inside in entry.iterdir():
                _take(inside, target / inside.name, top, link)
        elif entry.is_file():
            _take_file(entry, target, link)
        elif entry.exists():
            logger.warning("left out: %s is neither a file nor a folder", entry.name)


def _take_symlink(entry: Path, target: Path, top: Path) -> None:
    leads_to = entry.readlink()
    # Of strings: Path.resolve raises RuntimeError for links in a circle, which lead nowhere and do no harm.
    if leads_to.is_absolute() or not Path(os.path.realpath(entry)).is_relative_to(top.resolve()):
        logger.warning("left out: the link %s leads to %s, outside of its folder", entry.name, leads_to)
        return
    target.unlink(missing_ok=True)
    target.symlink_to(leads_to)


def _take_file(entry: Path, target: Path, link: bool) -> None:
    target.unlink(missing_ok=True)  # it may be a hard link itself: never write through it
    if link:
        try:
            target.hardlink_to(entry)
        except OSError:  # another file system
            link = False
    if not link:
        clone(str(entry), str(target))
        shutil.copystat(entry, target)


def remove(folder: Path) -> None:
    """Remove a tree, folders that a job made read-only too. Harmless if it is not there."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except PermissionError:
        process_keeper.open_folders(folder)
        shutil.rmtree(folder)
