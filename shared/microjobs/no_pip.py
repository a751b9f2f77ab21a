"""Replaces `pip` in an image without pip, for entry points that install a user's requirements."""

import os
import sys
from pathlib import Path

from microjobs.contract import Layout, write_failure, write_message
from microjobs.errors import EXIT_USER
from microjobs.interpreter import PYTHON_VARIABLE
from microjobs.run import JOB_VARIABLE

if __name__ == "__main__":
    layout, image = Layout.from_environment().with_existing_root(), Path(os.environ.get(JOB_VARIABLE, "")).name
    cause = f"image {image} has no pip"
    if PYTHON_VARIABLE in os.environ:
        cause = f"without a container engine, all jobs share the packages of {image}"
    reason = f"{cause}, so requirements of your script cannot be installed: use an image that already has the packages"
    print(f"ERROR {reason}", file=sys.stderr)
    write_failure(layout, reason)
    write_message(layout, reason)
    sys.exit(EXIT_USER)
