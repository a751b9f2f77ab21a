"""The drill for managed spot training: a file in the server's folder takes a training job's hosts away.

AWS has no operation for that, so there is none on the wire: `microjobs interrupt` writes the file.
"""

import json
import logging
import math
import threading
from dataclasses import asdict
from pathlib import Path

from microjobs.files import write_text
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.lifecycle.control import Control, Interruption
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2


def ask(home: Home, job: str, interruption: Interruption) -> None:
    """Have a running training job of this folder's server interrupted."""
    write_text(home.interruptions / job, json.dumps(asdict(interruption)))


def withdraw(home: Home, job: str) -> None:
    """Ask no more, if nobody has seen it yet."""
    (home.interruptions / job).unlink(missing_ok=True)


class Watch:
    """Looks for the file of one job while its hosts run, and hands it on."""

    def __init__(self, home: Home, job: str, control: Control) -> None:
        self._file = home.interruptions / job
        self._control = control
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"watch {job}", daemon=True)
        discard(self._file)  # of an attempt that ended before it was seen

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._ended.set()
        self._thread.join()
        discard(self._file)

    def _loop(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                asked = _read(self._file)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
                logger.warning("%s is left out: %s", self._file, error)
            else:
                self._control.send(asked)
            discard(self._file)


def _read(file: Path) -> Interruption:
    if file.exists() and not file.is_file():
        raise ValueError("it is no file")
    content = json.loads(file.read_text())
    seconds = {name: float(value) for name, value in content.items()}
    if not all(map(math.isfinite, seconds.values())):
        raise ValueError(f"seconds are expected, not {content}")
    return Interruption(**seconds)
