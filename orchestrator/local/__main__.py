"""Runs the server: `python -m orchestrator.local`, which is what `microjobs local up --detach` starts."""

import sys

from orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main(["local", "up", *sys.argv[1:]]))
