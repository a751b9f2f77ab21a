"""Worker processes of a training job, which `microjobs.distributed` starts on each host.

A worker that fails reports the reason to the process that started it. The cause is then known before the workers of
other hosts fail, too.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from microjobs.errors import EXIT_OK

REPORT_VARIABLE = "MICROJOBS_REPORT"
"""Variable with the path of the pipe to which workers write their report."""

EXIT_TIMEOUT_SECONDS = 60.0
"""Seconds from a worker's report of success until the worker exits, if its parent has not ended it."""

_MAX_LINE_BYTES = 4096
"""Maximum size of a line. Several workers' lines do not mix in the pipe if each has at most PIPE_BUF bytes."""


def is_worker(environ: Mapping[str, str] = os.environ) -> bool:
    return bool(environ.get(REPORT_VARIABLE))


def report(code: int, reason: str) -> bool:
    """Report the reason for this worker's end, and its exit code. Return False if this process is not a worker, or
    its parent has ended.

    A long reason, such as a traceback, is cut in the middle.
    """
    if not is_worker():
        return False
    try:
        with Path(os.environ[REPORT_VARIABLE]).open("ab", buffering=0) as pipe:
            pipe.write(_format_line(code, reason))
    except OSError:  # the parent has ended; its supervisor ends this process next
        return False
    return True


def finish() -> None:
    """Report success, and wait until the parent ends this process together with all workers of the job.

    Some frameworks need this wait: a worker must not exit before other workers have read its messages.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if report(EXIT_OK, ""):
        time.sleep(EXIT_TIMEOUT_SECONDS)


def _format_line(code: int, reason: str) -> bytes:
    kept_characters = len(reason)
    while (
        len(line := json.dumps([code, reason], ensure_ascii=False).encode(errors="replace") + b"\n") > _MAX_LINE_BYTES
    ):
        kept_characters = min(kept_characters * 3 // 4, _MAX_LINE_BYTES)
        reason = reason[: kept_characters // 2] + reason[-kept_characters // 2 :]
    return line
