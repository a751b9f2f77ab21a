"""Free space of a device, checked before and while files are written, so that a job cannot fill the device."""

import io
import os
from pathlib import Path

from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.terminal import escape_bytes

RESERVE_BYTES = 256 << 20
"""Number of bytes that always stay free. On a small device, a twentieth of its size stays free instead."""
CHECK_INTERVAL_BYTES = 16 << 20
"""Bytes that `LimitedFile` writes between two checks of the free space."""


class FreeSpace:
    """The number of bytes that can be written to the device of a folder.

    Args:
        action: the action that needs the space, such as `Artifact upload`. Error messages contain it.
    """

    def __init__(self, folder: Path, action: str) -> None:
        self._folder = folder
        self._action = action
        self._remaining = self.measure_available_bytes()

    def measure_available_bytes(self) -> int:
        """Return the number of bytes that can be written now. It is negative if fewer bytes are
        free than should remain free (RESERVE_BYTES)."""
        device = os.statvfs(self._folder)
        return device.f_bavail * device.f_frsize - min(RESERVE_BYTES, device.f_blocks * device.f_frsize // 20)

    def reserve(self, name: str, size: int, allocated_bytes: int = 0) -> None:
        """Reserve space for a file. Raises CannotRunError if the file does not fit.

        The holes of a sparse file count too, because a later copy of the file can fill them.

        Args:
            allocated_bytes: bytes of the file that are on this device already and need no copy.
        """
        self._remaining -= max(0, size - allocated_bytes)
        if self._remaining < 0:
            raise self._make_error(f"{escape_bytes(name)} of {_format_size(size)} does not fit")

    def check(self, name: str) -> None:
        """Raise CannotRunError if the device is full now."""
        if self.measure_available_bytes() < 0:
            raise self._make_error(f"{escape_bytes(name)} does not fit")

    def _make_error(self, problem: str) -> CannotRunError:
        free = _format_size(max(0, self.measure_available_bytes()))
        return CannotRunError(
            f"ClientError: {self._action} failed: {problem}: {free} can be used on the device of {self._folder}; "
            "write less, or free disk space"
        )


class LimitedFile(io.FileIO):
    """A new file that raises CannotRunError on a write when the device is full."""

    def __init__(self, path: Path, space: FreeSpace) -> None:
        super().__init__(path, "wb")
        self._space = space
        self._label = path.name
        self._unchecked_bytes = CHECK_INTERVAL_BYTES  # the first write checks the space

    def write(self, data: object) -> int:
        if self._unchecked_bytes >= CHECK_INTERVAL_BYTES:
            self._space.check(self._label)
            self._unchecked_bytes = 0
        count = super().write(data)  # type: ignore[arg-type]  # typeshed's WriteableBuffer
        self._unchecked_bytes += count
        return count


def _format_size(size: float) -> str:
    """Return a size with its unit, such as `12.3 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
