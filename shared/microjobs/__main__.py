"""The entry point of every image: `train`, `serve`, or the arguments of a processing job.

PID 1 stays small: it forks the job (`microjobs.run`) into a process group of its own and supervises it.
"""

import signal
import sys
from typing import NoReturn

if __name__ == "__main__":  # processes that a job starts may import this module without running it
    # Signals are blocked before the other imports: the kernel drops signals that PID 1 does not handle, but keeps
    # blocked signals pending.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

from microjobs.contract import Layout
from microjobs.supervisor import supervise

GRACE_SECONDS, SERVE_GRACE_SECONDS = 110.0, 27.0
"""Seconds that a job may take to end after SIGTERM. SageMaker sends SIGKILL after 120 s, or after 30 s in hosting. The
remaining seconds are for writing the failure file."""


def main() -> int:
    grace = SERVE_GRACE_SECONDS if sys.argv[1:2] == ["serve"] else GRACE_SECONDS
    return supervise(run, Layout.from_environment().with_existing_root(), grace)


def run() -> NoReturn:
    # only the job's process imports this module, because PID 1 does not need it
    from microjobs.run import exit_process, main

    exit_process(main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
