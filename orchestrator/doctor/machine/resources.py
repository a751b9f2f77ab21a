"""Disk space and memory."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from microjobs_orchestrator.doctor.check import Finding
from microjobs_orchestrator.local.home import Home

MIN_DISK_BYTES = 8 << 30
"""The images take 4 GB, and a build takes the same again until it ends."""
MIN_MEMORY_BYTES = 4 << 30
"""Three trainers run at a time, and each takes 0.6 to 1 GB."""


@dataclass(frozen=True)
class Resources:
    home: Home
    name: str = "disk space and memory"

    def run(self) -> Iterator[Finding]:
        folder = next(path for path in (self.home.root, *self.home.root.parents) if path.exists())
        free = shutil.disk_usage(folder).free
        yield compare("disk space", free, MIN_DISK_BYTES, f"free some on the disk of {folder}")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield compare("memory", memory, MIN_MEMORY_BYTES, "use --no-tuning, which trains one model at a time")


def compare(resource: str, size: int, minimum: int, remedy: str) -> Finding:
    """Return the finding for a size in bytes."""
    message = f"{size / 2**30:.1f} GB of {resource}"
    return Finding("ok", message) if size >= minimum else Finding("note", f"only {message}", remedy)
