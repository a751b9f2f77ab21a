"""Runs the server: `python -m microjobs_orchestrator.local`, which is what `microjobs local up --detach` starts."""

import sys

from microjobs_orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main(["local", "up", *sys.argv[1:]]))
