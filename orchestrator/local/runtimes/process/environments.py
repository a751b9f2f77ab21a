"""Virtual environments of jobs on the process runtime, and of programs such as MLflow: one per lock file.

Each is made once, completely or not at all. The environments of jobs contain the packages of the images, from the same
lock files and with the settings of docs/maintaining/building.md. No compiler is needed.
"""

import fcntl
import hashlib
import logging
import shlex
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import microjobs
from microjobs import layered_environment, locks
from microjobs_orchestrator.local import framework_images, trees
from microjobs_orchestrator.local.runtimes.base import CannotRunError, MachineFailedError
from microjobs_orchestrator.local.runtimes.process.managed_process import ManagedProcess
from microjobs_orchestrator.local.runtimes.process.packages import (
    INSTALLER_FOLDER,
    Installer,
    describe_build,
    merge_locks,
)

logger = logging.getLogger(__name__)

COMPLETE_MARKER = "complete"
"""The file that marks an environment as complete."""
MAX_REASON_LINES = 12
"""Maximum number of lines of an installer's output in an error message."""
MAX_UNUSED_SECONDS = 7 * 86_400.0
"""Seconds since the last use after which an environment is removed if the same lock file has a newer environment."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folder of its lock file."""

    job_folder: Path
    """The folder of a ready-made job, or of another program whose lock file is not in a job's folder."""
    folder: Path
    """The virtual environment."""
    base: Path | None = None
    """The folder of another environment whose packages this environment can import; None if it has all packages
    itself."""

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    def extend(self, folder: Path) -> "Environment":
        """Create an environment for one host that extends this environment, so that the host's program can install
        packages.

        An environment without pip cannot be extended, and is returned unchanged.
        """
        packages = layered_environment.get_site_packages(self.folder)
        if not (packages / "pip").is_dir():
            return self
        python = layered_environment.create(folder, [str(packages)])
        # The `pip` of the base environment would install packages into the base environment, so write programs that
        # install into this environment. -P ignores the current folder.
        for name in ("pip", "pip3"):
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} -P -m pip "$@"\n', encoding="utf-8")
            program.chmod(0o755)
        return Environment(self.job_folder, folder, self.folder)


class Environments:
    """Makes the environments of jobs and of other programs.

    Args:
        folder: the folder in which the environments are made.
        jobs_folder: the folder `containers` of this repository.
    """

    def __init__(self, folder: Path, jobs_folder: Path) -> None:
        self._folder = folder
        self._jobs_folder = jobs_folder
        self._lock = threading.Lock()
        self._installer_processes: set[ManagedProcess] = set()
        self._is_closed = False

    def ensure(self, image: str) -> Environment:
        """Return the environment of an image, and make it if needed. Raise CannotRunError if it cannot be made."""
        lock_file = self._find_lock_file(image)
        self._check_lock_file(lock_file)
        files = [self._jobs_folder.parent / "shared" / "requirements.lock", lock_file]
        package_list = merge_locks(*(path.read_text(encoding="utf-8") for path in files))
        environment = self._ensure(lock_file.parent, f"{lock_file.parent.name}-{lock_file.stem}", package_list)
        _add_shared_code(environment.folder)
        return environment

    def ensure_from_lock_file(self, name: str, lock_file: Path) -> Environment:
        """Return an environment with the packages of one lock file, for a program that is not a job.

        Raise CannotRunError if it cannot be made.
        """
        return self._ensure(lock_file.parent, name, merge_locks(lock_file.read_text(encoding="utf-8")))

    def _ensure(self, job_folder: Path, name: str, package_list: str) -> Environment:
        environment = Environment(job_folder, self._folder / f"{name}-{_hash_contents(package_list)}")
        self._folder.mkdir(parents=True, exist_ok=True)
        with hold_file_lock(environment.folder.with_suffix(".lock")) as lock_descriptor:
            if not (environment.folder / COMPLETE_MARKER).exists():
                self._make(environment, package_list, lock_descriptor)
            (environment.folder / COMPLETE_MARKER).touch()  # the time of this file is the time of the last use
        return environment

    def clean(self) -> None:
        """Remove incomplete environments, and old environments whose lock file has changed. Call this while no host
        runs.

        If a process holds the file lock of an incomplete environment, the environment is being made, and it stays. If
        a server was killed while it made an environment, the file lock is free: the server's installers have ended,
        too.
        """
        folders = [path for path in self._folder.glob("*") if path.is_dir()]
        replaced_folders = set(_list_replaced_folders(folders))
        for folder in folders:
            with suppress(BlockingIOError), hold_file_lock(folder.with_suffix(".lock"), wait=False):
                if folder in replaced_folders or not _read_last_use(folder):
                    trees.remove(folder)

    def _find_lock_file(self, image: str) -> Path:
        name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
        lock_file = self._jobs_folder / name / ("cuda.lock" if tag.endswith("-cuda") else "cpu.lock")
        jobs = sorted(path.parent.name for path in self._jobs_folder.glob("*/image.yml"))
        if name not in jobs:
            raise CannotRunError(
                f"image {image} is not a job of this repository ({', '.join(jobs)}): without an engine, only these "
                f"jobs run; {framework_images.format_hint(image)}use one of them (--image-alias), or start Docker"
            )
        if not lock_file.is_file():
            reason = f"the job {name} has no {lock_file.name}"
            raise CannotRunError(f"image {image} cannot be used: {reason}; use another tag")
        return lock_file

    def _check_lock_file(self, lock_file: Path) -> None:
        """Raise CannotRunError if a lock file was not made from the current lists of packages (`.in`)."""
        for source in (lock_file.with_suffix(".in"), self._jobs_folder.parent / "shared" / "requirements.in"):
            if source.is_file() and (reason := locks.explain_stale_lock(source)):
                raise CannotRunError(reason)

    def _make(self, environment: Environment, package_list: str, lock_descriptor: int) -> None:
        folder, started = environment.folder, time.monotonic()
        trees.remove(folder)  # an earlier attempt may have been killed
        folder.mkdir()
        installer = Installer.find(self._jobs_folder / "local-packages")
        logger.info("making the environment %s", folder.name)
        try:
            for command in installer.make_commands(folder, package_list):
                self._run(command, installer, package_list, folder, lock_descriptor)
            trees.remove(folder / INSTALLER_FOLDER)
        except BaseException:
            trees.remove(folder)
            raise
        logger.info("made the environment %s in %.0f s", folder.name, time.monotonic() - started)

    def _run(
        self, command: Sequence[str], installer: Installer, package_list: str, folder: Path, lock_descriptor: int
    ) -> None:
        log, lines = folder / "install.log", list[str]()
        with self._lock:
            if self._is_closed:
                raise MachineFailedError("the server is stopping")
            process = ManagedProcess(
                command, installer.make_variables(package_list), log, inherited_files=[lock_descriptor]
            )
            self._installer_processes.add(process)
        try:
            for line in process.lines():
                lines.append(line.text.decode(errors="replace"))
                if "Downloading" in lines[-1]:
                    logger.info("%s", lines[-1].strip())
            code = process.wait()
        finally:
            with self._lock:
                self._installer_processes.discard(process)
            process.stop(grace=0)
        if code != 0:
            reason = "\n".join([*_select_error(lines), installer.describe_sources(package_list)])
            logger.error("the environment %s cannot be made: %s", folder.name, reason)
            problem = f"`{' '.join(command[:4])} …` ended with {code} and printed"
            raise MachineFailedError(f"the environment {folder.name} cannot be made: {problem}\n{reason}")

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            processes = list(self._installer_processes)
        for process in processes:
            process.stop(grace=0)


def _select_error(lines: Sequence[str]) -> Sequence[str]:
    """Return the end of an installer's output, from its last error if it prints one.

    A FailureReason is cut after 1024 characters, and the cause must be in it.
    """
    errors = [number for number, line in enumerate(lines) if line.startswith(("error:", "ERROR:"))]
    return lines[max(len(lines) - MAX_REASON_LINES, errors[-1] if errors else 0) :]


def _read_last_use(folder: Path) -> float:
    """Return the time of the last use of an environment, in seconds since 1970; 0 if it is incomplete."""
    try:
        return (folder / COMPLETE_MARKER).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _list_replaced_folders(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield complete environments that were not used for some time, and whose lock file has a newer environment."""
    uses = {folder: last_use for folder in folders if (last_use := _read_last_use(folder))}
    for folder, last_use in uses.items():
        name = folder.name.rpartition("-")[0]
        newest_use = max(uses[other] for other in uses if other.name.rpartition("-")[0] == name)
        if last_use < min(newest_use, time.time() - MAX_UNUSED_SECONDS):
            yield folder


def _add_shared_code(folder: Path) -> None:
    """Make `microjobs` importable in an environment, and no other package of the server's environment.

    PYTHONPATH would do so, too, but that variable belongs to the user.
    """
    packages = layered_environment.get_site_packages(folder)
    link, package = packages / "microjobs", Path(microjobs.__file__).parent
    if not link.is_symlink() or link.readlink() != package:
        link.unlink(missing_ok=True)
        link.symlink_to(package)
        (packages / "microjobs.pth").unlink(missing_ok=True)  # an earlier version wrote this file


def _hash_contents(package_list: str) -> str:
    python = f"{sys.version} {sysconfig.get_platform()} {Path(sys.executable).resolve()}"
    contents = f"{python}\n{package_list}{describe_build(package_list)}"
    return hashlib.sha256(contents.encode()).hexdigest()[:12]


@contextmanager
def hold_file_lock(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Lock a file and yield its descriptor. A process that inherits the descriptor keeps the lock until it ends.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is false.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield file.fileno()
