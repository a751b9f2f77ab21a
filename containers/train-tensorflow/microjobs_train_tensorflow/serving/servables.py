"""Finds SavedModels in the model folder. Does not import TensorFlow.

TensorFlow Serving's layout is one folder per model, which contains one folder per version: `NAME/VERSION`.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from microjobs.errors import UserError

logger = logging.getLogger("microjobs")

FILE = "saved_model.pb"
DEFAULT_NAME = "model"
"""Name of a model that is at the top of the model folder."""

Versions = Mapping[int, Path]
"""The SavedModel of each version."""


def find_servables(folder: Path) -> Mapping[str, Versions]:
    """Return the versions of each model by the model's name; empty if the folder has no SavedModel.

    The folder `code` belongs to the user's program. If no SavedModel is in a folder whose name is a number, all are
    version 1. Otherwise, SavedModels in folders with other names are ignored, as by AWS's image.

    Raises:
        UserError: two models have the same name, or two SavedModels of a model the same version.
    """
    paths = sorted(file.parent for file in folder.rglob(FILE) if not file.is_relative_to(folder / "code"))
    numbered = [path for path in paths if path != folder and path.name.isdecimal()]
    found: dict[str, dict[int, Path]] = {}
    bases: dict[str, Path] = {}
    for path in numbered or paths:
        base = path.parent if numbered else path
        name = DEFAULT_NAME if base == folder else base.name
        if bases.setdefault(name, base) != base:
            raise UserError(f"{bases[name]} and {base} are both named {name!r}: rename one of the folders")
        _add_version(found.setdefault(name, {}), int(path.name) if numbered else 1, path)
    _warn_of_ignored([path for path in paths if numbered and path not in numbered])
    return found


def _add_version(versions: dict[int, Path], number: int, path: Path) -> None:
    if number in versions:
        raise UserError(f"{versions[number]} and {path} are both version {number}: rename one of the folders")
    versions[number] = path


def _warn_of_ignored(paths: Sequence[Path]) -> None:
    for path in paths:
        logger.warning("%s is not served, because other SavedModels are in folders with a number", path)
