"""Number of workers, from the CPUs that this container may use."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

from microjobs.errors import UserError

CGROUP = Path("/sys/fs/cgroup")


def worker_count(environ: Mapping[str, str]) -> int:
    """Return SAGEMAKER_MODEL_SERVER_WORKERS, or one worker per CPU that this container may use.

    Raises:
        UserError: the variable is not a positive number.
    """
    text = environ.get("SAGEMAKER_MODEL_SERVER_WORKERS", "")
    if not text:
        return max(1, int(min(len(os.sched_getaffinity(0)), cpu_quota())))
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"SAGEMAKER_MODEL_SERVER_WORKERS is {text!r}: set it to a number of at least 1")
    return int(text)


def cpu_quota(cgroup: Path = CGROUP) -> float:
    """Return the CPUs that `docker run --cpus` and similar options allow; infinity if there is no limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf
