"""Prints the revision label for an image of a job: `python3 scripts/revision.py JOB [VARIANT]`."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from microjobs_orchestrator.sources import read_revision  # noqa: E402

if __name__ == "__main__":
    print(read_revision(REPOSITORY, *sys.argv[1:]))
