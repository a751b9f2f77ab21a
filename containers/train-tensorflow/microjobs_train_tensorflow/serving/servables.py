"""Finds SavedModels in the model folder. Does not import TensorFlow.

TensorFlow Serving's layout is one folder per model, which contains one folder per version: `NAME/VERSION`.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from microjobs.errors import UserError

logger = logging.getLogger("microjobs")

SAVED_MODEL_FILE = "saved_model.pb"
DEFAULT_NAME = "model"
"""Name of a model that is at the top of the model folder."""

Versions = Mapping[int, Path]
"""The SavedModel of each version."""


def find_servables(folder: Path) -> Mapping[str, Versions]:
    """Return the versions of each model by the model's name; empty if the folder has no SavedModel.

    The folder `code` is not searched, because it belongs to the user's program. If no SavedModel is in a folder whose
    name is a number, each SavedModel is version 1 of its model. Otherwise, SavedModels in folders with other names are
    ignored, as by AWS's image.

    Raises:
        UserError: two models have the same name, or two SavedModels of a model have the same version.
    """
    paths = sorted(file.parent for file in folder.rglob(SAVED_MODEL_FILE) if not file.is_relative_to(folder / "code"))
    version_folders = [path for path in paths if path != folder and path.name.isdecimal()]
    versions_by_name: dict[str, dict[int, Path]] = {}
    model_folders: dict[str, Path] = {}
    for path in version_folders or paths:
        model_folder = path.parent if version_folders else path
        name = DEFAULT_NAME if model_folder == folder else model_folder.name
        if model_folders.setdefault(name, model_folder) != model_folder:
            raise UserError(
                f"{model_folders[name]} and {model_folder} are both named {name!r}: rename one of the folders"
            )
        _add_version(versions_by_name.setdefault(name, {}), int(path.name) if version_folders else 1, path)
    _warn_about_ignored_models([path for path in paths if version_folders and path not in version_folders])
    return versions_by_name


def _add_version(versions: dict[int, Path], number: int, path: Path) -> None:
    if number in versions:
        raise UserError(f"{versions[number]} and {path} are both version {number}: rename one of the folders")
    versions[number] = path


def _warn_about_ignored_models(paths: Sequence[Path]) -> None:
    for path in paths:
        logger.warning("%s is not served, because other SavedModels are in folders with a number", path)
