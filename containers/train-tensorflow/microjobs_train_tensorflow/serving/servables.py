"""Finds SavedModels in the model folder. Does not import TensorFlow.

TensorFlow Serving's layout is one folder per model, which contains one folder per version: `NAME/VERSION`.
"""

from collections.abc import Mapping
from pathlib import Path

from microjobs.errors import UserError

FILE = "saved_model.pb"
DEFAULT_NAME = "model"
"""Name of a model that is at the top of the model folder."""

Versions = Mapping[int, Path]
"""The SavedModel of each version."""


def find_servables(folder: Path) -> Mapping[str, Versions]:
    """Return the versions of each model by the model's name; empty if the folder has no SavedModel.

    A SavedModel outside of a folder with a number is version 1.

    Raises:
        UserError: two models have the same name.
    """
    found: dict[str, dict[int, Path]] = {}
    bases: dict[str, Path] = {}
    for path in sorted(file.parent for file in folder.rglob(FILE)):
        is_versioned = path != folder and path.name.isdecimal()
        base = path.parent if is_versioned else path
        name = DEFAULT_NAME if base == folder else base.name
        if bases.setdefault(name, base) != base:
            raise UserError(f"{bases[name]} and {base} are both named {name!r}: rename one of the folders")
        found.setdefault(name, {})[int(path.name) if is_versioned else 1] = path
    return found
