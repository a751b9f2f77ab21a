"""The commands of `microjobs`, one module per command.

`add_arguments` adds the arguments to the command's parser, and `call` runs the command. A module is imported only if
the command line names its command, because its imports can take longer than the whole command `microjobs ps`.
"""

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from difflib import get_close_matches
from math import isfinite
from typing import Any


class LazyParser(ArgumentParser):
    """Adds its arguments when it parses a command line. `add_arguments` may also set `epilog` and `description`."""

    def __init__(self, *, add_arguments: Callable[[ArgumentParser], None] | None = None, **settings: Any) -> None:
        super().__init__(formatter_class=RawDescriptionHelpFormatter, **settings)
        self._add_arguments = add_arguments
        name = self.prog.rpartition(" ")[2]
        # argcomplete reads the arguments of the named command before it parses the command line, so they are added now
        if name in os.environ.get("COMP_LINE", "").split():
            self._add_once()

    def parse_known_args(  # type: ignore[override]  # argparse has overloads of this method
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Namespace, list[str]]:
        self._add_once()
        options, unknown_arguments = super().parse_known_args(args, namespace)
        if unknown_arguments:
            self.error(f"unrecognized arguments: {' '.join(unknown_arguments)}{self._suggest(unknown_arguments[0])}")
        return options, []

    def _suggest(self, argument: str) -> str:
        # Names are compared without dashes, because dashes make all options similar.
        options = {option.lstrip("-"): option for option in self._option_string_actions}
        similar_names = get_close_matches(argument.partition("=")[0].lstrip("-"), options, n=1)
        if similar_names:
            return f": did you mean {options[similar_names[0]]}?"
        return f": {self.prog} --help lists the arguments"

    def _add_once(self) -> None:
        add_arguments, self._add_arguments = self._add_arguments, None
        if add_arguments is not None:
            add_arguments(self)


def parse_count(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def parse_number(text: str, unit: str) -> float:
    """Parse a number of days or seconds that is not negative."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if number < 0 or not isfinite(number):
        raise ArgumentTypeError(f"{text!r} is not a number of {unit}, such as 7 or 0.5")
    return number
