"""Runs the server: `python -m microjobs_orchestrator.local`, which `microjobs local up --detach` starts."""

import argparse
import sys

from microjobs_orchestrator import command_line
from microjobs_orchestrator.local import commands

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="microjobs")
    commands.add_parser(parser.add_subparsers())
    sys.exit(
        command_line.run(parser, ["local", "up", "--no-console-address", *sys.argv[1:]], command_line.describe_error)
    )
