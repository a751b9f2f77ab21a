"""Finds the bundle or the user's code in the model folder."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from microjobs.bundle import MODEL_FILE, open_model_folder
from microjobs.contract import Layout
from microjobs.errors import UserError
from microjobs.hosting.model_source import ModelSource, bundle_source, handler_source
from microjobs.hosting.user_program import MAX_NAMES, find_program


def find_model_source(layout: Layout, environ: Mapping[str, str], cleanup: ExitStack) -> ModelSource:
    """Return the user's own code if the model folder has some, otherwise the bundle.

    Raises:
        UserError: the folder has neither, or the bundle cannot be loaded.
        RestartNeededError: the user's requirements have been installed for another interpreter.
    """
    folder = cleanup.enter_context(open_model_folder(layout.model))
    program = find_program(layout, folder, environ, cleanup)
    if program is not None:
        return handler_source(program, folder, environ)
    if not (folder / MODEL_FILE).is_file():
        raise UserError(_no_model_message(folder))
    return bundle_source(folder)


def _no_model_message(folder: Path) -> str:
    """Return an error message with the files of the folder and the remedy."""
    scripts = sorted(path.name for path in (folder / "code").glob("*.py"))
    if (folder / "inference.py").is_file():
        remedy = "move inference.py into the folder code/"
    elif scripts:
        names = ", ".join(scripts[:MAX_NAMES])
        remedy = f"code/ has {names}: name the program inference.py, or set SAGEMAKER_PROGRAM"
    else:
        remedy = "serve runs bundles of the train jobs, and your own code in code/inference.py"
    entries = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    content = ", ".join(entries[:MAX_NAMES]) or "nothing"
    return f"{folder} has no {MODEL_FILE}: it is not a model bundle of the train jobs. It contains {content}; {remedy}"
