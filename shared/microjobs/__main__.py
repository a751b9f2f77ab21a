"""The entry point of every image: `train`, `serve`, or the arguments of a processing job.

PID 1 stays small: it forks the job (`microjobs.run`) into a process group of its own and supervises it.
"""

import signal
import sys
from typing import NoReturn

if __name__ == "__main__":  # the processes of a job's pool import this module too
    # Before the other imports: the kernel drops signals that PID 1 does not handle, but keeps blocked ones pending.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

from microjobs.contract import Layout
from microjobs.supervisor import supervise

GRACE_SECONDS, SERVE_GRACE_SECONDS = 110.0, 27.0
"""SageMaker's time between SIGTERM and SIGKILL (120 s, for hosting 30 s), less some time to write the failure file."""


def main() -> int:
    grace = SERVE_GRACE_SECONDS if sys.argv[1:2] == ["serve"] else GRACE_SECONDS
    return supervise(run, Layout.from_environment().existing_or_default(), grace)


def run() -> NoReturn:
    from microjobs.run import exit_process, main  # only the job's process imports it: PID 1 needs none of it

    exit_process(main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
