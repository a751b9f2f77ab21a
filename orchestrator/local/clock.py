"""Time that passes evenly, whatever happens to the system's clock, also over a restart of the server."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


def _boot_id() -> str:
    """An id of the time since this machine started; of this process alone where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return uuid.uuid4().hex


BOOT_ID = _boot_id()


@dataclass(frozen=True)
class Moment:
    """When something happened, by two clocks."""

    wall: float
    """Seconds since 1970, by the clock that may be set."""
    steady: float = 0.0
    """Seconds by the clock that nobody sets, which begins when the machine starts."""
    boot: str = ""
    """The start of the machine that `steady` counts from; empty: unknown."""

    @classmethod
    def now(cls) -> "Moment":
        return cls(time.time(), time.monotonic(), BOOT_ID)

    @classmethod
    def read(cls, stored: Any, wall: float) -> "Moment":
        """What `stored` gave; of an earlier version, or none, the time by the clock alone."""
        return cls(**stored) if isinstance(stored, Mapping) else cls(wall)

    def stored(self) -> dict[str, Any]:
        return asdict(self)

    def elapsed(self) -> float:
        """Seconds since then. After a restart of the machine by the clock that may be set."""
        if self.boot == BOOT_ID:
            return time.monotonic() - self.steady
        return max(0.0, time.time() - self.wall)
