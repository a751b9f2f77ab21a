"""Command-line arguments of processing jobs."""

import argparse
from typing import NoReturn

from microjobs.contract import DEFAULT_ROOT
from microjobs.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises UserError, so that invalid arguments end the job like other invalid input."""

    def add_folders(self, *names: str) -> None:
        """Add an option for each folder name; the default is the processing job's folder with this name."""
        for name in names:
            default = f"{DEFAULT_ROOT}/processing/{name}"
            self.add_argument(f"--{name}", default=default, help="folder; default: %(default)s")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"arguments: {message} (see {self.prog} --help)")
