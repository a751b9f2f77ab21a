"""Finds the model to serve: the user's code, a TorchScript archive, or a bundle.

Only loading the model imports PyTorch.
"""

import zipfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

from microjobs.bundle import MODEL_FILE, open_model_folder
from microjobs.contract import Layout
from microjobs.hosting.default_handlers import DefaultFunctions, choose_bundle_defaults
from microjobs.hosting.model_source import ModelSource, make_bundle_source, make_handler_source, make_no_model_error
from microjobs.hosting.user_program import find_program

ARCHIVE_NAMES = ("model.pt", "model.pth")
"""Usual names of a TorchScript archive. AWS's image expects the first name."""


def find_model_source(layout: Layout, environ: Mapping[str, str], cleanup: ExitStack) -> ModelSource:
    """Return a source with the user's code, the TorchScript archive, or both; if neither exists, with the bundle.

    The code is in the model folder, or where SAGEMAKER_SUBMIT_DIRECTORY states.

    Raises:
        UserError: the folder has no model, a variable names code that does not exist, or the bundle cannot be loaded.
        RestartNeededError: the server must restart with the interpreter that has the user's requirements.
    """
    folder = cleanup.enter_context(open_model_folder(layout.model))
    program = find_program(layout, folder, environ, cleanup)
    archive = find_torchscript(folder)
    if program is not None or archive is not None:
        return make_handler_source(program, folder, environ, choose_defaults, archive.name if archive else "")
    if (folder / MODEL_FILE).is_file():
        return make_bundle_source(folder, environ)
    remedy = "save a TorchScript archive (torch.jit.save) as model.pt, or add code/inference.py with model_fn"
    raise make_no_model_error(folder, "TorchScript archive, code/inference.py or bundle of the train jobs", remedy)


def find_torchscript(folder: Path) -> Path | None:
    """Return the TorchScript archive of a model folder: one with a usual name, or the only one; otherwise None."""
    archives = [
        path for suffix in ("pt", "pth") for path in sorted(folder.glob(f"*.{suffix}")) if _is_torchscript(path)
    ]
    usual_archives = [path for name in ARCHIVE_NAMES for path in archives if path.name == name]
    return next(iter(usual_archives), archives[0] if len(archives) == 1 else None)


def _is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive: a zip file with `constants.pkl`. Other zip files of PyTorch have
    no such member."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def choose_defaults(defined_functions: Collection[str], model_dir: Path) -> DefaultFunctions:
    """Return the defaults of PyTorch's convention, or the defaults of bundles if the model can only be the bundle."""
    archive = find_torchscript(model_dir)
    if "model_fn" not in defined_functions and archive is None and (model_dir / MODEL_FILE).is_file():
        return choose_bundle_defaults(defined_functions, model_dir)
    from .default_functions import limit_threads, make_defaults

    limit_threads()
    return make_defaults(archive)
