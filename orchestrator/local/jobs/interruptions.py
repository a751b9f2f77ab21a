"""The drill for managed spot training: a file in the server's folder takes a training job's hosts away.

AWS has no operation for that, so there is none on the wire: `microjobs interrupt` writes the file.
"""

import json
import logging
import threading
from dataclasses import asdict

from microjobs.files import write_text
from orchestrator.local.home import Home
from orchestrator.local.jobs.group import Control, Interruption

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
        self._file.unlink(missing_ok=True)  # of an attempt that ended before it was seen

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._ended.set()
        self._thread.join()
        self._file.unlink(missing_ok=True)

    def _loop(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                asked = Interruption(**json.loads(self._file.read_text()))
            except FileNotFoundError:
                continue
            except (ValueError, TypeError) as error:
                logger.warning("%s is left out: %s", self._file, error)
            else:
                self._control.interrupt(asked)
            self._file.unlink(missing_ok=True)
