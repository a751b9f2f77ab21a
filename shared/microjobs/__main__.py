"""The entry point of every image: `train`, `serve`, or a processing job's own arguments.

PID 1 stays small: it starts the job (`microjobs.run`) as a process group of its own and looks after it.
"""

import signal
import sys

# First of all: the kernel drops signals that PID 1 does not handle, and one that is blocked waits.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

from microjobs.contract import Layout  # noqa: E402
from microjobs.supervisor import supervise  # noqa: E402

# What SageMaker waits between SIGTERM and SIGKILL, less the time to write down why: training and processing 120 s,
# hosting 30 s.
GRACE_SECONDS = 110.0
SERVE_GRACE_SECONDS = 27.0


def main() -> int:
    arguments = sys.argv[1:]
    grace = SERVE_GRACE_SECONDS if arguments[:1] == ["serve"] else GRACE_SECONDS
    return supervise([sys.executable, "-m", "microjobs.run", *arguments], Layout.from_environment(), grace)


if __name__ == "__main__":
    sys.exit(main())
