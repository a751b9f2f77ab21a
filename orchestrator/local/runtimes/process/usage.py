"""The resources that a process and its descendants use, from the files of Linux in /proc."""

import os
from collections.abc import Iterator
from pathlib import Path

from microjobs_orchestrator.local.runtimes.base import HostUsage

TICKS_PER_SECOND, PAGE_BYTES = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
TIME_FIELDS = slice(11, 15)
"""The positions of utime, stime, cutime and cstime among the fields after the program's name in /proc/PID/stat."""


def measure(pid: int) -> HostUsage | None:
    """Return the resources that a process and its descendants use; None if the process has ended."""
    ticks, private_pages, shared_pages = 0, 0, 0
    processes = list(_list_processes(pid))
    for process in processes:
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            _, resident, shared, *_ = map(int, (process / "statm").read_text().split())
        except OSError:  # the process has ended
            continue
        ticks += sum(map(int, fields[TIME_FIELDS]))
        private_pages += resident - shared
        # shared pages count once, because most of them are pages of the same libraries
        shared_pages = max(shared_pages, shared)
    if not ticks and not private_pages:
        return None
    memory_bytes = (private_pages + shared_pages) * PAGE_BYTES
    return HostUsage(ticks / TICKS_PER_SECOND, memory_bytes, os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES)


def _list_processes(pid: int) -> Iterator[Path]:
    """Yield the folders of a process and its descendants in /proc."""
    process = Path("/proc") / str(pid)
    yield process
    try:
        children = [child for task in (process / "task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:  # the process has ended
        return
    for child in children:
        yield from _list_processes(int(child))
