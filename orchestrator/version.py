"""`microjobs --version`."""

import argparse
from typing import Any


class Version(argparse.Action):
    """Prints the version, and the revision in a clone of the repository."""

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
    """Return the commit of the code, or an empty string if it is unknown."""
    import subprocess
    from pathlib import Path

    repository = Path(__file__).resolve().parent.parent
    if not (repository / ".git").exists():  # the package may be installed inside of another repository
        return ""
    command = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
