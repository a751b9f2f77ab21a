"""Entry point of the command `microjobs` and of `python -m microjobs_orchestrator`."""

import sys


def main() -> int:
    """Run the command and return its exit code. The module `command_line` lists the exit codes."""
    try:
        from microjobs_orchestrator import cli  # imported late, so that Ctrl-C during the imports prints no traceback

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
