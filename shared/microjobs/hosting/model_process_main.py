"""Runs the command `serve` for one of several models, and ends this process when its parent process ends.

This process becomes a supervisor, which runs as long as its job and should need little memory. Therefore, import only
modules that need nothing but the standard library.
"""

import signal
import sys

from microjobs import processes


def main(parent_pid: int) -> int:
    """Run the command as the image's entry point does, and return the exit code.

    Args:
        parent_pid: process ID of the server that started this process.
    """
    processes.end_with_parent(parent_pid, signal.SIGTERM)
    sys.argv[1:] = ["serve"]
    from microjobs.__main__ import main as run_entry_point  # reads the arguments

    return run_entry_point()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
