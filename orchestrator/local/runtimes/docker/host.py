"""One host of runtime `docker`: a container. If the engine restarts, its methods continue afterwards."""

import errno
import itertools
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException
from docker.models.containers import Container

from microjobs_orchestrator.local.runtimes.archives import pack, pack_empty_file, unpack
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, HostUsage, Line
from microjobs_orchestrator.local.runtimes.docker.engine import (
    RETRY_DELAY_SECONDS,
    UNREACHABLE_ERRORS,
    EngineUnreachableError,
    follow_log,
    open_stream,
    retry_while_unreachable,
)
from microjobs_orchestrator.local.runtimes.docker.labels import HOST_LABEL
from microjobs_orchestrator.local.runtimes.docker.log_frames import LineAssembler
from microjobs_orchestrator.local.runtimes.gpus import measure_gpus
from microjobs_orchestrator.local.trees import Tree, discard

logger = logging.getLogger(__name__)

SIGNAL_DELAY_SECONDS = 1.0
"""Seconds from a container's start until it can be stopped. Until then, its first process may have no signal handlers,
and the kernel drops signals that a first process does not handle: SIGTERM would be lost."""
ARCHIVE_CHUNK_BYTES = 1 << 16  # chunks are small, because tarfile copies the rest of a chunk at each header

KILLED_EXIT_CODE = 128 + 9
REMOVING_STATUSES = ("removing", "dead")
"""Status values of a container that is being removed."""

NO_SPACE = "no space left on device"
"""A part of the engine's error message for a full disk."""

Connect = Callable[[float], socket.socket]
"""Opens a connection, as `Host.connect` does."""


class DockerHost:
    """A container."""

    def __init__(self, container: Container, connect: Connect) -> None:
        self.name: str = container.labels[HOST_LABEL]
        self._container = container
        self._connect = connect
        self._handles_signals_at = time.monotonic() + SIGNAL_DELAY_SECONDS

    def lines(self) -> Iterator[Line]:
        count = 0
        while True:
            log = LineAssembler()
            try:
                for line in itertools.islice(log.read(follow_log(self._container)), count, None):
                    count += 1
                    yield line
                if not self._is_running():
                    # an incomplete line is final, because the container has ended
                    yield from log.list_unfinished_lines()
                    return
            except UNREACHABLE_ERRORS as error:
                logger.info("the connection to the log of %s was lost: %s", self.name, error)
                if retry_while_unreachable(self._read_state) is None:
                    return
            time.sleep(RETRY_DELAY_SECONDS)

    def _is_running(self) -> bool:
        state = retry_while_unreachable(self._read_state)
        return state is not None and state["Running"]

    def _read_state(self) -> Mapping[str, Any]:
        self._container.reload()
        state: Mapping[str, Any] = self._container.attrs["State"]
        return state

    def wait(self) -> Exit:
        try:
            result = retry_while_unreachable(lambda: self._container.wait(timeout=None))
            state = retry_while_unreachable(self._read_state)
        except EngineUnreachableError as error:
            return Exit(KILLED_EXIT_CODE, str(error), has_external_cause=True)
        if result is None or state is None or state["Status"] in REMOVING_STATUSES:
            return Exit(KILLED_EXIT_CODE, "another program removed its container", has_external_cause=True)
        if state["OOMKilled"]:
            return Exit(int(result["StatusCode"]), "it ran out of memory")
        return Exit(int(result["StatusCode"]), state["Error"] or None)

    def stop(self, grace: float) -> None:
        time.sleep(max(0.0, self._handles_signals_at - time.monotonic()))
        retry_while_unreachable(lambda: self._container.stop(timeout=round(grace)))

    def measure(self) -> HostUsage | None:
        try:
            statistics: Any = self._container.stats(stream=False, one_shot=True)
            memory = statistics["memory_stats"]
            used_bytes, limit = memory["usage"] - _get_cached_bytes(memory.get("stats", {})), memory["limit"]
            seconds = statistics["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        except (*UNREACHABLE_ERRORS, DockerException, KeyError):
            # the container has ended, or the engine has no statistics
            return None
        return HostUsage(seconds, used_bytes, limit, measure_gpus(_list_gpus(self._container))) if limit else None

    def copy(self, path: str, target: Path) -> Tree | None:
        def request_copy() -> Tree:
            discard(target)  # an interrupted earlier request may have left files
            with open_stream(self._container, "archive", None, {"path": path}) as response:
                return unpack(response.iter_content(ARCHIVE_CHUNK_BYTES), target, path)

        try:
            return retry_while_unreachable(request_copy)
        except APIError:
            state = retry_while_unreachable(self._read_state)
            if state is None or state["Status"] in REMOVING_STATUSES:
                return None
            raise

    def add_folder(self, source: Path, path: str) -> None:
        def request_copy() -> bool:
            with pack([(source, path)]) as archive:
                return bool(self._container.put_archive("/", archive))

        try:
            is_copied = retry_while_unreachable(request_copy)
        except APIError as error:
            if NO_SPACE in str(error.explanation):
                raise OSError(errno.ENOSPC, f"{NO_SPACE} in the container for {path}") from error
            raise CannotRunError(f"{path} could not be copied to {self.name}: {error.explanation}") from error
        if not is_copied:
            raise CannotRunError(f"the container of {self.name} was removed")

    def remove_folder(self, path: str) -> None:
        """Replace a folder by an empty file, because the image may not have the program `rm`."""
        try:
            retry_while_unreachable(lambda: self._container.put_archive("/", pack_empty_file(path)))
        except APIError as error:
            logger.warning("%s of %s is not removed: %s", path, self.name, error.explanation)

    def connect(self, timeout: float) -> socket.socket:
        try:
            return self._connect(timeout)
        except (*UNREACHABLE_ERRORS, APIError) as error:
            raise ConnectionAbortedError(f"the engine does not report the container's address: {error}") from error


def _get_cached_bytes(statistics: Mapping[str, int]) -> int:
    """Return the memory for cached files that the kernel can free. Version 1 of cgroups has another name for it."""
    return statistics.get("inactive_file", statistics.get("total_inactive_file", 0))


def _list_gpus(container: Container) -> Sequence[str] | None:
    """Return the indices or UUIDs of a container's GPUs: None for all GPUs of the machine, `()` for no GPU."""
    requests = container.attrs["HostConfig"].get("DeviceRequests") or ()
    if not requests:
        return ()
    return requests[0].get("DeviceIDs") or None
