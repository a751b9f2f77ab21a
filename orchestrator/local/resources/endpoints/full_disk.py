"""Repetition of work that fails because the disk is full."""

import threading
from collections.abc import Callable
from typing import TypeVar

from microjobs_orchestrator.local.errors import is_disk_full

RETRY_SECONDS = 5.0
"""Seconds between two attempts."""

Result = TypeVar("Result")


def retry(action: Callable[[], Result], closing: threading.Event, note: Callable[[str], None]) -> Result:
    """Perform an action, and return its result. Each time that the disk is full, wait, and perform the action again.

    Args:
        closing: ends the current delay. The error of the next attempt is then raised, even if the disk is full.
        note: called before the first delay, and when an attempt has succeeded after a delay. It receives a text such as
            `waits, because the disk is full`, adds the subject, and logs the sentence.
    """
    is_waiting = False
    while True:
        try:
            result = action()
            break
        except Exception as error:
            if not is_disk_full(error) or closing.is_set():
                raise
        if not is_waiting:
            is_waiting = True
            note(f"waits, because the disk is full: free disk space; the next attempt is in {RETRY_SECONDS:g} s")
        closing.wait(RETRY_SECONDS)
    if is_waiting:
        note("continues, because the disk has space again")
    return result
