"""Room on the device: files are checked before they are copied, so that none fills the device of others."""

import io
import os
from pathlib import Path

from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.terminal import escape_bytes

RESERVE_BYTES = 256 << 20
"""Stay free, or a twentieth of a small device."""
CHECK_BYTES = 16 << 20
"""Are written between two looks at what is free."""


class Room:
    """What may be written to the device of a folder.

    Args:
        what: what is being made, for the reason of a failure: `Artifact upload`.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self._folder = folder
        self._what = what
        self._left = self.free()

    def free(self) -> int:
        """Bytes that may be used now."""
        device = os.statvfs(self._folder)
        return device.f_bavail * device.f_frsize - min(RESERVE_BYTES, device.f_blocks * device.f_frsize // 20)

    def take(self, name: str, size: int, allocated: int = 0) -> None:
        """Count a file as it would be when copied elsewhere, where holes take space, too.

        Args:
            allocated: bytes that it takes on this device already, and that are not copied.

        Raises:
            CannotRunError: it does not fit.
        """
        self._left -= max(0, size - allocated)
        if self._left < 0:
            raise self._full(f"{escape_bytes(name)} of {_spelled(size)} does not fit")

    def check(self, name: str) -> None:
        """Raises CannotRunError if the device is full now."""
        if self.free() < 0:
            raise self._full(f"{escape_bytes(name)} does not fit")

    def _full(self, what: str) -> CannotRunError:
        free = _spelled(max(0, self.free()))
        return CannotRunError(
            f"ClientError: {self._what} failed: {what}: {free} can be used on the device of {self._folder}; "
            "write less, or free some space"
        )


class LimitedFile(io.FileIO):
    """A new file that stops growing before the device is full."""

    def __init__(self, path: Path, room: Room) -> None:
        super().__init__(path, "wb")
        self._room = room
        self._label = path.name
        self._written = CHECK_BYTES

    def write(self, data: object) -> int:
        if self._written >= CHECK_BYTES:
            self._room.check(self._label)
            self._written = 0
        count = super().write(data)  # type: ignore[arg-type]  # typeshed's WriteableBuffer
        self._written += count
        return count


def _spelled(size: float) -> str:
    """`12.3 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
