"""Answers `pip` in an image that has no pip, for entry points that install a user's requirements first."""

import os
import sys
from pathlib import Path

from microjobs.contract import Layout, write_failure, write_message
from microjobs.errors import EXIT_USER
from microjobs.interpreter import PYTHON
from microjobs.run import JOB


def main() -> int:
    """Write the reason where SageMaker reads it, and return the exit code for wrong input."""
    layout, image = Layout.from_environment().or_default(), Path(os.environ.get(JOB, "")).name
    why = f"image {image} has no pip"
    if PYTHON in os.environ:
        why = f"jobs share the packages of {image} where no engine runs them"
    reason = f"{why}, so requirements of your script cannot be installed: use an image that already has the packages"
    print(f"ERROR {reason}", file=sys.stderr)
    write_failure(layout, reason)
    write_message(layout, reason)
    return EXIT_USER


if __name__ == "__main__":
    sys.exit(main())
