"""Runs one program, and exits with the program's exit code.

    python -I -S process_shim.py LOG WORKING_FOLDER CPUS FOLDER PATH COMMAND…

The program also sees FOLDER at PATH, if the kernel allows mount namespaces.

Each line of the log has the time at which a line of output was read, in microseconds since 1970, and the line. A very
long line of output is split. If it contains a carriage return, it is split after its last one, and a `+` after the time
shows that it continues in the next line of the log. Otherwise, its parts become separate lines. After each write to the
log, the shim writes a byte to stdout, so that the server need not poll the log.

A number on stdin ends the program: the shim sends SIGTERM, and SIGKILL after that many seconds. When stdin closes, the
server has ended, so the shim ends the program, too. As in a container, no process that the program started outlives the
program.

The shim is a separate program, because it must end the program properly even if the server is killed. It imports the
standard library only, so that it starts quickly.
"""

import contextlib
import ctypes
import itertools
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO

ORPHAN_GRACE_SECONDS = 3.0
"""Seconds between SIGTERM and SIGKILL after the end of the server."""
DRAIN_SECONDS = 2.0
"""Time limit for reading output after the program's end. If the kernel does not list the processes that the program
started, the shim cannot end them, and they may keep the pipe open."""
MAX_LINE_BYTES = 1 << 20

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000  # linux/sched.h
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000  # linux/mount.h
_MNT_DETACH = 2  # sys/mount.h


class Log:
    """Writes lines of output to a file, with strictly increasing times. Calls `notify` after each write."""

    def __init__(self, file: IO[bytes], notify: Callable[[], None] = lambda: None) -> None:
        self._file = file
        self._notify = notify
        self._partial_line = b""
        self._last_time = 0

    def add(self, chunk: bytes) -> None:
        *lines, self._partial_line = (self._partial_line + chunk).split(b"\n")
        self._write(lines)
        if len(self._partial_line) > MAX_LINE_BYTES:
            end = self._partial_line.rfind(b"\r", 0, -1) + 1  # the last byte may be the first one of `\r\n`
            piece, self._partial_line = self._partial_line[: end or None], self._partial_line[end:] if end else b""
            self._write([piece], mark=b"+" if end else b"")

    def end(self) -> None:
        if self._partial_line:
            self._write([self._partial_line])

    def _write(self, lines: Sequence[bytes], mark: bytes = b"") -> None:
        # A full disk must not end the program: the program may react to it.
        with contextlib.suppress(OSError):
            for line in lines:
                self._last_time = max(time.time_ns() // 1000, self._last_time + 1)
                self._file.write(b"%d%s %s\n" % (self._last_time, mark, line))
            self._file.flush()
        self._notify()


class Shim:
    """Runs a program, and then kills the processes that it started and that still run.

    `prepare` is called in the program's process, before the program starts.
    """

    def __init__(self, command: Sequence[str], log: Log, prepare: Callable[[], None] = lambda: None) -> None:
        self._log = log
        self._deadline = float("inf")
        self._wake_reader, wake_writer = os.pipe()
        for descriptor in (self._wake_reader, wake_writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            process_group=0,
            preexec_fn=lambda: _prepare_program(prepare),
        )
        assert self._program.stdout is not None  # noqa: S101  for mypy
        self._output = self._program.stdout.fileno()
        os.set_blocking(self._output, False)
        self._sources = {self._wake_reader, self._output, sys.stdin.fileno()}

    def run(self) -> int:
        """Wait for the program's end. Return its exit code, or 128 + N if signal N ended it."""
        while self._program.poll() is None:
            self._step()
        _end_descendants()
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._output in self._sources and time.monotonic() < deadline:
            self._read_output(max(0.0, deadline - time.monotonic()))
        self._log.end()
        code: int = self._program.returncode
        return 128 - code if code < 0 else code

    def _step(self) -> None:
        wait = max(0.0, self._deadline - time.monotonic())
        ready, _, _ = select.select(self._sources, [], [], None if wait == float("inf") else wait)
        if self._output in ready:
            self._read_output()
        if sys.stdin.fileno() in ready:
            self._read_request()
        if self._wake_reader in ready and signal.SIGTERM in os.read(self._wake_reader, 512):
            self._request_end(ORPHAN_GRACE_SECONDS)
        if time.monotonic() >= self._deadline:
            os.killpg(self._program.pid, signal.SIGKILL)
            self._deadline = time.monotonic() + 1.0  # send the signal once per second until the program has ended

    def _read_output(self, wait: float = 0.0) -> None:
        if select.select([self._output], [], [], wait)[0]:
            chunk = os.read(self._output, 1 << 16)
            self._log.add(chunk)
            if not chunk:
                self._sources.discard(self._output)

    def _read_request(self) -> None:
        requests = os.read(sys.stdin.fileno(), 512).split()
        if not requests:
            self._sources.discard(sys.stdin.fileno())
        self._request_end(min(map(float, requests), default=ORPHAN_GRACE_SECONDS))

    def _request_end(self, grace: float) -> None:
        self._deadline = min(self._deadline, time.monotonic() + grace)
        if grace > 0:
            self._program.terminate()


def _end_descendants() -> None:
    """Kill the processes that the program left running. They are children of the shim, because it is a subreaper."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(ChildProcessError, FileNotFoundError):
        while True:
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.001)


def remove_tree(folder: str) -> None:
    """Remove a tree of any depth, also with read-only folders. Do nothing if it does not exist.

    Inner folders are moved into the top folder and removed there, so depth and long paths do not matter.

    Raises:
        OSError: a part of the tree cannot be removed. All other parts have been removed.
    """
    with contextlib.suppress(NotADirectoryError):
        _remove_folder(folder)
        return
    os.unlink(folder)  # noqa: PTH108


def _remove_folder(folder: str) -> None:
    try:
        mode = os.lstat(folder).st_mode
        if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
            os.chmod(folder, 0o700)  # noqa: PTH101
    except FileNotFoundError:
        return
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _empty_folder(top)
    finally:
        os.close(top)
    os.rmdir(folder)  # noqa: PTH106


def _empty_folder(top: int) -> None:
    """Remove the content of a folder, until it is empty, or has only items that cannot be removed."""
    prefix = f".removed-{os.getpid()}-{time.monotonic_ns()}-"
    numbers = itertools.count()
    remaining: list[str] = []
    while names := os.listdir(top):
        error = None
        for name in names:
            try:
                if not _unlink(name, top):
                    _flatten(name, top, lambda: f"{prefix}{next(numbers)}")
            except FileNotFoundError:
                continue
            except OSError as failed:
                error = failed
        if sorted(names) == remaining and error is not None:
            raise error
        remaining = sorted(names)


def _unlink(name: str, folder: int) -> bool:
    """Remove a file; return False if it is a folder."""
    try:
        os.unlink(name, dir_fd=folder)
    except (IsADirectoryError, PermissionError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise
        return False
    return True


def _flatten(name: str, top: int, make_name: Callable[[], str]) -> None:
    """Move the folders in a folder into the top folder, and remove the folder."""
    os.chmod(name, 0o700, dir_fd=top)
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        for inner in os.listdir(folder):  # noqa: PTH208  a descriptor
            if not _unlink(inner, folder):
                os.chmod(inner, 0o700, dir_fd=folder)
                os.rename(inner, make_name(), src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def remove_working_folder(working_folder: str) -> None:
    """Remove the working folder of a program as far as possible."""
    with contextlib.suppress(OSError):
        remove_tree(working_folder)


def _prepare_program(prepare: Callable[[], None]) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # the kernel sends this signal if the shim is killed
    prepare()


def show_folder(folder: str, path: str) -> None:
    """Make a folder visible at a path, for this process and its children only. If that fails, print a line about it."""
    try:
        _unshare_mounts()
        if not Path(path).is_dir():
            _make_mount_point(Path(path))
        _mount(folder, path, None, _MS_BIND | _MS_REC)
    except OSError as error:
        reason = f"[microjobs] {path} is not available to this process, because it cannot mount folders ({error}): "
        os.write(2, f"{reason}read the path of this folder from the variable SAGEMAKER_BASE_DIR\n".encode())


def _unshare_mounts() -> None:
    """Give this process its own mounts. Only root can do this without a user namespace."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(_CLONE_NEWNS) != 0:
        _raise_if_failed(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
        process = Path("/proc/self")
        (process / "setgroups").write_text("deny")
        (process / "uid_map").write_text(f"{user} {user} 1")
        (process / "gid_map").write_text(f"{group} {group} 1")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)


def _make_mount_point(path: Path) -> None:
    """Create a missing path without a change to the disk: mount a temporary folder over its parent, and show the
    entries of the parent in it, as mounts and links."""
    parent = path.parent
    # The original folder is read through a descriptor. If it were mounted at another path, the program could read all
    # files of the machine's folder at that path, and could delete them by emptying that path.
    original = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _mount("none", str(parent), "tmpfs", 0)
        try:
            _mount_entries(Path(f"/proc/self/fd/{original}"), parent)
            path.mkdir()
        except OSError:
            _raise_if_failed(ctypes.CDLL(None, use_errno=True).umount2(str(parent).encode(), _MNT_DETACH))
            raise
    finally:
        os.close(original)


def _mount_entries(original: Path, copy: Path) -> None:
    for entry in original.iterdir():
        target = copy / entry.name
        if entry.is_symlink():
            target.symlink_to(entry.readlink())
            continue
        target.mkdir() if entry.is_dir() else target.touch()
        _mount(str(entry), str(target), None, _MS_BIND | _MS_REC)


def _mount(source: str, target: str, file_system: str | None, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    file_system_name = file_system and file_system.encode()
    _raise_if_failed(libc.mount(source.encode(), target.encode(), file_system_name, ctypes.c_ulong(flags), None))


def _raise_if_failed(result: int) -> None:
    """Raise OSError if a function of the C library did not return 0."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def main(log_path: str, working_folder: str, cpus: str, folder: str, path: str, *command: str) -> int:
    if cpus:
        os.sched_setaffinity(0, map(int, cpus.split(",")))
    file = Path(log_path).open("ab")  # noqa: SIM115  the file is closed below, because closing can fail
    try:
        prepare = partial(show_folder, folder, path) if folder else lambda: None
        return _run(command, Log(file, _notify_server), prepare)
    finally:
        with contextlib.suppress(OSError):  # a full disk must not change the exit code
            file.close()
        remove_working_folder(working_folder)


def _notify_server() -> None:
    """Wake the server. Ignore a full pipe, which wakes the server too, and a pipe that the server has closed."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), b"\0")


def _run(command: Sequence[str], log: Log, prepare: Callable[[], None]) -> int:
    os.set_blocking(sys.stdout.fileno(), False)
    try:
        shim = Shim(command, log, prepare)
    except OSError as error:
        log.add(f"cannot start {command[0]!r}: {error.strerror}\n".encode())
        return 127 if isinstance(error, FileNotFoundError) else 126  # Docker and shells use these exit codes
    return shim.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
