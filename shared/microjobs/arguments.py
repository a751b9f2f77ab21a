"""Command-line arguments of processing jobs."""

import argparse
from typing import NoReturn

from microjobs.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors end the job as any other wrong input does: with a reason on file."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError with argparse's sentence and where help is."""
        raise UserError(f"arguments: {message} (see {self.prog} --help)")
