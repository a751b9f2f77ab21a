"""The verbs of `microjobs`, a module each: `add_parser` says what it takes, and imports what it needs when it runs."""

from argparse import ArgumentParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    Subparsers = _SubParsersAction[ArgumentParser]
