"""The entry point of every image: `train`, `serve`, or a processing job's own arguments.

PID 1 stays small: it forks the job (`microjobs.run`) as a process group of its own and looks after it.
"""

import signal
import sys
from typing import NoReturn

if __name__ == "__main__":  # not in the processes of a job's pool, which import this module too
    # First of all: the kernel drops signals that PID 1 does not handle, and one that is blocked waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

from microjobs.contract import Layout
from microjobs.supervisor import supervise

# What SageMaker waits between SIGTERM and SIGKILL, less the time to write down why: training and processing 120 s,
# hosting 30 s.
GRACE_SECONDS = 110.0
SERVE_GRACE_SECONDS = 27.0


def main() -> int:
    grace = SERVE_GRACE_SECONDS if sys.argv[1:2] == ["serve"] else GRACE_SECONDS
    return supervise(run, Layout.from_environment().or_default(), grace)


def run() -> NoReturn:
    # Imported in the job's process only: PID 1 needs none of it.
    from microjobs.run import end, main

    end(main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
