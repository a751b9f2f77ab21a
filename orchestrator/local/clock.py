"""Elapsed time that does not depend on changes of the system's clock, even if the server restarts."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


def _read_boot_id() -> str:
    """Return an id of the machine's current boot, or of this process if the system has no id for its boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return uuid.uuid4().hex


BOOT_ID = _read_boot_id()


@dataclass(frozen=True)
class Moment:
    """A point in time, measured with two clocks."""

    wall: float
    """Seconds since 1970, by the system's clock, which users can set."""
    steady: float = 0.0
    """Seconds since the machine started. Setting the system's time does not change this clock."""
    boot: str = ""
    """Id of the boot from which `steady` counts; empty if unknown."""

    @classmethod
    def now(cls) -> "Moment":
        return cls(time.time(), time.monotonic(), BOOT_ID)

    @classmethod
    def read(cls, members: Any, wall: float) -> "Moment":
        """Return the moment that `to_members` stored. If there is none, the moment has only its `wall` time."""
        return cls(**members) if isinstance(members, Mapping) else cls(wall)

    def to_members(self) -> dict[str, Any]:
        return asdict(self)

    def elapsed(self) -> float:
        """Return the seconds since this moment. After a restart of the machine, they depend on the system's clock."""
        if self.boot == BOOT_ID:
            return time.monotonic() - self.steady
        return max(0.0, time.time() - self.wall)
