"""Shorter polling intervals for programs that use the SageMaker SDK, because the jobs of tests take seconds."""

import importlib
import time
from contextlib import suppress
from types import SimpleNamespace

MAX_POLL_SECONDS = 0.5
CLOCK_SPEED = 60
LOG_MODULES = (
    "sagemaker.session",
    "sagemaker.core.helper.session_helper",
    "sagemaker.core.processing",
    "sagemaker.core.transformer",
)
"""Modules of version 2 and of version 3 that print the logs of a job. They ask only every 30 seconds of their clock
whether the job has ended."""


def poll_quickly() -> None:
    """Limit each sleep of this program to MAX_POLL_SECONDS, because the SDK sleeps between polls. Let the clock of
    `LOG_MODULES` run 60 times as fast."""
    sleep, clock = time.sleep, time.time
    time.sleep = lambda seconds: sleep(min(float(seconds), MAX_POLL_SECONDS))
    fast_time = SimpleNamespace(**{**vars(time), "time": lambda: CLOCK_SPEED * clock()})
    for name in LOG_MODULES:
        with suppress(ImportError):
            importlib.import_module(name).time = fast_time  # type: ignore[attr-defined]  # any module
