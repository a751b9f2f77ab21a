"""`microjobs --version`."""

import argparse
from typing import Any


class Version(argparse.Action):
    """Prints the version, and the revision where this is a clone: versions follow the repository."""

    def __init__(self, option_strings: list[str], **members: Any) -> None:
        super().__init__(option_strings, **{**members, "dest": argparse.SUPPRESS, "nargs": 0})

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(describe())
        parser.exit()


def describe() -> str:
    from importlib.metadata import version

    revision = _revision()
    return f"microjobs {version('microjobs')}{f' (revision {revision})' if revision else ''}"


def _revision() -> str:
    """The commit that the code is of; empty if that cannot be known."""
    import subprocess
    from pathlib import Path

    repository = Path(__file__).resolve().parent.parent
    if not (repository / ".git").exists():  # installed below somebody else's repository
        return ""
    command = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
