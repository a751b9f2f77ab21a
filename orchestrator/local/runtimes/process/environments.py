"""Virtual environments of the process runtime: one per lock file, made once, completely or not at all.

They contain the packages of the images, from the same lock files and with the settings of
docs/maintaining/building.md, but only wheels, because the machine may have no compiler. So the toolkit of script mode,
which is published as source, is left out, with the packages that only it needs.
"""

import fcntl
import hashlib
import logging
import shlex
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import microjobs
from microjobs import layered_environment, locks
from microjobs_orchestrator.local import framework_images, trees
from microjobs_orchestrator.local.runtimes.base import CannotRunError, MachineFailedError
from microjobs_orchestrator.local.runtimes.process.managed_process import ManagedProcess
from microjobs_orchestrator.local.runtimes.process.packages import Installer, merge_locks

logger = logging.getLogger(__name__)

COMPLETE_MARKER = "complete"
"""The file that marks an environment as complete."""
REASON_LINES = 12
MAX_UNUSED_SECONDS = 7 * 86_400.0
"""Time since the last use after which an environment is removed, if there is a newer one for the same lock file."""


@dataclass(frozen=True)
class Environment:
    """A job's folder and its virtual environment."""

    job: Path
    folder: Path
    below: Path | None = None
    """The folder of the environment whose packages this one sees; None if it has all packages itself."""

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    def extend(self, folder: Path) -> "Environment":
        """Create an environment for one host on top of this one, into which its program can install packages.

        An environment without pip cannot be extended, and is returned itself.
        """
        packages = layered_environment.find_packages(self.folder)
        if not (packages / "pip").is_dir():
            return self
        python = layered_environment.create(folder, [str(packages)])
        # The pip programs of the environment below would install into that environment. -P ignores the current folder.
        for name in ("pip", "pip3"):
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} -P -m pip "$@"\n', encoding="utf-8")
            program.chmod(0o755)
        return Environment(self.job, folder, self.folder)


class Environments:
    """Makes the environments of the jobs in one folder."""

    def __init__(self, folder: Path, jobs: Path) -> None:
        self._folder = folder
        self._jobs = jobs
        self._lock = threading.Lock()
        self._installing: set[ManagedProcess] = set()
        self._closed = False

    def ensure(self, image: str) -> Environment:
        """Return the environment of an image, and make it if needed. Raise CannotRunError if it cannot be made."""
        lock = self._lock_file(image)
        self._check_lock(lock)
        files = [self._jobs.parent / "shared" / "requirements.lock", lock]
        package_list = merge_locks(*(path.read_text(encoding="utf-8") for path in files))
        environment = self._ensure(lock.parent, f"{lock.parent.name}-{lock.stem}", package_list)
        _add_shared_code(environment.folder)
        return environment

    def ensure_locked(self, name: str, lock: Path) -> Environment:
        """Return an environment with the packages of one lock file, for a program that is no job.

        Raise CannotRunError if it cannot be made.
        """
        return self._ensure(lock.parent, name, merge_locks(lock.read_text(encoding="utf-8")))

    def _ensure(self, job: Path, name: str, package_list: str) -> Environment:
        environment = Environment(job, self._folder / f"{name}-{_hash_contents(package_list)}")
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked_file(environment.folder.with_suffix(".lock")) as lock_file:
            if not (environment.folder / COMPLETE_MARKER).exists():
                self._make(environment, package_list, lock_file)
            (environment.folder / COMPLETE_MARKER).touch()  # the time of the last use
        return environment

    def clean(self) -> None:
        """Remove incomplete environments, and old ones whose lock file has changed. Call this while no host runs.

        A killed server leaves incomplete ones; its installers have ended with it. An environment whose lock is held is
        being made.
        """
        folders = [path for path in self._folder.glob("*") if path.is_dir()]
        replaced = set(_list_replaced(folders))
        for folder in folders:
            with suppress(BlockingIOError), locked_file(folder.with_suffix(".lock"), wait=False):
                if folder in replaced or not _read_last_use(folder):
                    trees.remove(folder)

    def _lock_file(self, image: str) -> Path:
        name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
        lock = self._jobs / name / ("cuda.lock" if tag.endswith("-cuda") else "cpu.lock")
        jobs = sorted(path.parent.name for path in self._jobs.glob("*/image.yml"))
        if name not in jobs or not lock.is_file():
            variant = f" or has no {lock.name}" if name in jobs else ""
            raise CannotRunError(
                f"image {image} is not a job of this repository ({', '.join(jobs)}){variant}: without an engine, only "
                f"these jobs run; {framework_images.remedy(image)}use one of them (--image-alias), or start Docker"
            )
        return lock

    def _check_lock(self, lock: Path) -> None:
        for source in (lock.with_suffix(".in"), self._jobs.parent / "shared" / "requirements.in"):
            if source.is_file() and (reason := locks.reason_if_stale(source)):
                raise CannotRunError(reason)

    def _make(self, environment: Environment, package_list: str, lock_file: int) -> None:
        folder, started = environment.folder, time.monotonic()
        trees.remove(folder)  # an earlier attempt may have been killed
        folder.mkdir()
        installer = Installer.find(self._jobs / "local-packages")
        logger.info("making the environment %s with %s", folder.name, installer.name)
        try:
            for command in installer.make_commands(folder, package_list):
                self._run(command, installer, package_list, folder, lock_file)
        except BaseException:
            trees.remove(folder)
            raise
        logger.info("made the environment %s in %.0f s", folder.name, time.monotonic() - started)

    def _run(
        self, command: Sequence[str], installer: Installer, package_list: str, folder: Path, lock_file: int
    ) -> None:
        log, last_lines = folder / "install.log", deque[str](maxlen=REASON_LINES)
        with self._lock:
            if self._closed:
                raise MachineFailedError("the server is stopping")
            running = ManagedProcess(
                command, installer.make_environment(package_list), log, inherited_files=[lock_file]
            )
            self._installing.add(running)
        try:
            for line in running.lines():
                last_lines.append(line.text.decode(errors="replace"))
                if "Downloading" in last_lines[-1]:
                    logger.info("%s", last_lines[-1].strip())
            code = running.wait()
        finally:
            with self._lock:
                self._installing.discard(running)
            running.stop(0)
        if code != 0:
            command_line = " ".join(command[:4])
            raise MachineFailedError(
                f"the environment {folder.name} cannot be made: `{command_line} …` ended with {code} and printed\n"
                + "\n".join([*last_lines, installer.describe_sources(package_list)])
            )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            installing = list(self._installing)
        for installer in installing:
            installer.stop(0)


def _read_last_use(folder: Path) -> float:
    """Return the time at which a job last used an environment, in seconds since 1970; 0 if it is incomplete."""
    try:
        return (folder / COMPLETE_MARKER).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _list_replaced(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield complete environments that were not used for some time, and have a newer one for the same lock file."""
    uses = {folder: last_use for folder in folders if (last_use := _read_last_use(folder))}
    for folder, last_use in uses.items():
        name = folder.name.rpartition("-")[0]
        newest = max(uses[other] for other in uses if other.name.rpartition("-")[0] == name)
        if last_use < min(newest, time.time() - MAX_UNUSED_SECONDS):
            yield folder


def _add_shared_code(folder: Path) -> None:
    """Make `microjobs` importable in an environment, and no other package of the server's environment.

    PYTHONPATH would do so, too, but that variable belongs to the user.
    """
    packages = layered_environment.find_packages(folder)
    link, package = packages / "microjobs", Path(microjobs.__file__).parent
    if not link.is_symlink() or link.readlink() != package:
        link.unlink(missing_ok=True)
        link.symlink_to(package)
        (packages / "microjobs.pth").unlink(missing_ok=True)  # of an earlier version


def _hash_contents(package_list: str) -> str:
    python = f"{sys.version} {sysconfig.get_platform()} {Path(sys.executable).resolve()}"
    return hashlib.sha256(f"{python}\n{package_list}".encode()).hexdigest()[:12]


@contextmanager
def locked_file(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Lock a file and yield its descriptor. A process that inherits it keeps the lock until it ends.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is false.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield file.fileno()
