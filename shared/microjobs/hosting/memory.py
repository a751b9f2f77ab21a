"""Memory that is free for more models, and reservations of memory for models that are being loaded."""

import contextlib
import ctypes
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from microjobs import processes
from microjobs.errors import UserError

from .responses import HttpError

MEMORY_VARIABLE = "MICROJOBS_SERVE_MEMORY_MB"
"""Environment variable: memory limit in MB for the server with all its models and their processes."""

MB = 1024 * 1024
HEADROOM_BYTES = 64 * MB
"""Free memory that loading a model requires in addition to the size of its files, for its process and for requests."""
CGROUP = Path("/sys/fs/cgroup")
INSUFFICIENT_STORAGE = 507
"""If a container answers with this status, SageMaker unloads models that are not in use, and then tries again to load
the model."""


class MemoryBudget:
    """The memory that this server may use for models.

    Args:
        limit_bytes: maximum memory of this process and its descendants; infinity if only the container and the machine
            limit it.
    """

    def __init__(self, limit_bytes: float = math.inf) -> None:
        self._limit_bytes = limit_bytes
        self._reserved_bytes = 0
        self._lock = threading.Lock()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "MemoryBudget":
        """Return the budget that the environment sets.

        Raises:
            UserError: the limit is not a positive number.
        """
        text = environ.get(MEMORY_VARIABLE) or ""
        if text and (not text.isdecimal() or int(text) < 1):
            raise UserError(f"{MEMORY_VARIABLE} is {text!r}: set it to a positive number of megabytes")
        return cls(int(text) * MB if text else math.inf)

    @contextlib.contextmanager
    def reserve(self, folder: Path) -> Iterator[None]:
        """Reserve memory for the model in a folder while the `with` block loads it. Then check the limit again.

        Raises:
            HttpError: 507, the memory is not sufficient.
        """
        model_bytes = measure_folder_bytes(folder)
        with self._lock:
            free_bytes = self._measure_free_bytes() - self._reserved_bytes
            if model_bytes + HEADROOM_BYTES > free_bytes:
                raise _make_memory_error(model_bytes + HEADROOM_BYTES, free_bytes)
            self._reserved_bytes += model_bytes
        try:
            yield
            if (free_bytes := self._measure_free_bytes()) < 0:
                raise _make_memory_error(model_bytes, free_bytes)
        except MemoryError:
            raise _make_memory_error(model_bytes, free_bytes=0) from None
        finally:
            with self._lock:
                self._reserved_bytes -= model_bytes

    def _measure_free_bytes(self) -> float:
        used_bytes = measure_process_tree_bytes(os.getpid()) if self._limit_bytes < math.inf else 0
        return min(self._limit_bytes - used_bytes, measure_container_free_bytes(), measure_machine_free_bytes())


def measure_folder_bytes(folder: Path) -> int:
    """Return the total size of the files in a folder and its subfolders."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure_process_tree_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants in bytes. Shared pages count once."""
    own_bytes = 0
    with contextlib.suppress(OSError):  # the process has ended
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        own_bytes = sum(int(kilobytes) for kilobytes in re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)) * 1024
    return own_bytes + sum(map(measure_process_tree_bytes, processes.find_children(pid)))


def measure_container_free_bytes(cgroup: Path = CGROUP) -> float:
    """Return the memory that the container may still use; infinity if it has no limit. File caches count as free."""
    is_v2 = (cgroup / "memory.max").exists()
    folder = cgroup if is_v2 else cgroup / "memory"
    limit_file, used_file, prefix = (
        ("memory.max", "memory.current", "") if is_v2 else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    )
    try:
        limit, used = (int((folder / name).read_text()) for name in (limit_file, used_file))
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - used + sum(int(statistics[f"{prefix}{kind}_file"]) for kind in ("inactive", "active"))
    except (OSError, ValueError, KeyError):  # the file does not exist, or contains "max"
        return math.inf


def measure_machine_free_bytes() -> float:
    match = re.search(r"^MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else math.inf


def release_free_memory() -> None:
    """Return the memory of freed objects to the system. Otherwise, the C library keeps it."""
    with contextlib.suppress(AttributeError, OSError):  # only glibc has this function
        ctypes.CDLL(None).malloc_trim(0)


def _make_memory_error(needed_bytes: float, free_bytes: float) -> HttpError:
    needed_mb, free_mb = needed_bytes / MB, max(0.0, free_bytes) / MB
    message = f"the model needs about {needed_mb:.0f} MB of memory, and {free_mb:.0f} MB are free"
    return HttpError(INSUFFICIENT_STORAGE, f"{message}: unload another model, or use a larger instance")
