"""A worker: a process of a training job that another one of the same host has started (`microjobs.distributed`).

What it cannot go on for, it tells the one that started it before it ends, so that the cause is known before the other
hosts' workers fail because of it.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from microjobs.errors import EXIT_OK

REPORT = "MICROJOBS_REPORT"
"""Set for workers: where to write to, a pipe of the process that started them."""

END_SECONDS = 60.0
"""How long a worker waits to be ended; then it ends by itself."""

_ATOMIC = 4096
"""Bytes that stay together in a pipe which several workers write to: PIPE_BUF of Linux."""


def in_worker(environ: Mapping[str, str] = os.environ) -> bool:
    return bool(environ.get(REPORT))


def report(code: int, reason: str) -> bool:
    """Tell why this worker ends, with which exit code; false where nobody asked.

    Of a long reason, such as a traceback, the beginning and the end are told.
    """
    if not in_worker():
        return False
    try:
        with Path(os.environ[REPORT]).open("ab", buffering=0) as pipe:
            pipe.write(_line(code, reason))
    except OSError:  # who started us is gone, and ends us next
        return False
    return True


def finish() -> None:
    """Say that this worker has done its part, and wait to be ended with the others of the job.

    For frameworks whose workers must not leave before the others have read what they sent them.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if report(EXIT_OK, ""):
        time.sleep(END_SECONDS)


def _line(code: int, reason: str) -> bytes:
    kept = len(reason)
    while len(line := json.dumps([code, reason], ensure_ascii=False).encode(errors="replace") + b"\n") > _ATOMIC:
        kept = min(kept * 3 // 4, _ATOMIC)
        reason = reason[: kept // 2] + reason[-kept // 2 :]
    return line
