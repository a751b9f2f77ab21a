"""One host of runtime `process`, and its named pipes."""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from microjobs.contract import Layout
from microjobs.network import Network, connect_unix
from microjobs_orchestrator.local.runtimes import files
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, HostUsage, Line
from microjobs_orchestrator.local.runtimes.gpus import measure_gpus
from microjobs_orchestrator.local.runtimes.process import commands
from microjobs_orchestrator.local.runtimes.process.managed_process import ManagedProcess
from microjobs_orchestrator.local.runtimes.process.usage import measure
from microjobs_orchestrator.local.trees import Tree, discard

KILLED_EXIT_CODE = 128 + 9
POLL_INTERVAL = 0.02
"""Seconds between two attempts to open a pipe. One blocking call would wait forever if the host ended without reading
the pipe."""


class ProcessHost:
    """A process and all processes that it starts. `gpus` are the host's GPUs, as `gpus.select_gpus` returns them."""

    def __init__(self, name: str, process: ManagedProcess, layout: Layout, gpus: Sequence[str] | None = ()) -> None:
        self.name = name
        self._process = process
        self._layout = layout
        self._gpus = gpus
        self._is_stopped = False

    def lines(self) -> Iterator[Line]:
        return self._process.lines()

    def wait(self) -> Exit:
        code = self._process.wait()
        if code < 0:
            return Exit(KILLED_EXIT_CODE, "another program killed the host's shim process", has_external_cause=True)
        if code == KILLED_EXIT_CODE and not self._is_stopped:
            return Exit(code, "killed by SIGKILL: most likely out of memory")
        return Exit(code)

    def stop(self, grace: float) -> None:
        self._is_stopped = True
        self._process.stop(grace)

    def end_as_if_server_died(self) -> None:
        """End the host as if the server had died."""
        self._is_stopped = True
        self._process.disconnect()

    def measure(self) -> HostUsage | None:
        usage = None if self._process.exit_code is not None else measure(self._process.pid)
        return usage and replace(usage, gpus=measure_gpus(self._gpus))

    def copy(self, path: str, target: Path) -> Tree | None:
        code = self._process.exit_code
        has_no_writer = code is not None and code >= 0  # processes may still write if the shim was killed
        return files.collect(commands.resolve_contract_path(self._layout, path), target, use_hard_links=has_no_writer)

    def add_folder(self, source: Path, path: str) -> None:
        if self._process.exit_code is not None:
            raise CannotRunError(f"{self.name} has ended")
        self.remove_folder(path)  # `copy_tree` cannot replace the symbolic links of an earlier copy
        files.copy_tree(source, commands.resolve_contract_path(self._layout, path))

    def remove_folder(self, path: str) -> None:
        discard(commands.resolve_contract_path(self._layout, path))

    def connect(self, timeout: float) -> socket.socket:
        return connect_unix(Network.make_socket_path(self._process.working_folder), timeout)

    def fill_pipe(self, path: str, chunks: Iterable[bytes]) -> bool:
        """Fill a pipe of the host, as `pipes.FillPipe` describes."""
        local_path = commands.resolve_contract_path(self._layout, path)
        return fill_pipe(local_path, lambda: self._process.exit_code is not None, chunks)


def fill_pipe(path: Path, has_ended: Callable[[], bool], chunks: Iterable[bytes]) -> bool:
    """Fill a named pipe of this machine, as `pipes.FillPipe` describes."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
    while (descriptor := _open_writer(path)) is None:
        if has_ended():
            return False
        time.sleep(POLL_INTERVAL)
    os.set_blocking(descriptor, True)
    # A broken pipe means that the reader has closed it, or has ended.
    with contextlib.suppress(BrokenPipeError), open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor
        for chunk in chunks:
            file.write(chunk)
    return not has_ended()


def _open_writer(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
