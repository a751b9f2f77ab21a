"""The verbs of `microjobs`, a module each: `add_parser` says what it takes, and imports what it needs when it runs."""

from argparse import ArgumentParser, ArgumentTypeError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    Subparsers = _SubParsersAction[ArgumentParser]


def parse_count(text: str) -> int:
    """Parse a flag's whole number above 0.

    Raises:
        ArgumentTypeError: the text is not one.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
