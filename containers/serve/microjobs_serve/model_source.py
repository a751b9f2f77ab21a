"""Finds the bundle or the user's code in the model folder."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from microjobs.bundle import MODEL_FILE, open_model_folder
from microjobs.contract import Layout
from microjobs.hosting.model_source import ModelSource, make_bundle_source, make_handler_source, make_no_model_error
from microjobs.hosting.user_program import find_program


def find_model_source(layout: Layout, environ: Mapping[str, str], cleanup: ExitStack) -> ModelSource:
    """Return the user's own code if the model folder has some, otherwise the bundle.

    Raises:
        UserError: the folder has neither, or the bundle cannot be loaded.
        RestartNeededError: the server must restart with the interpreter that has the user's requirements.
    """
    folder = cleanup.enter_context(open_model_folder(layout.model))
    program = find_program(layout, folder, environ, cleanup)
    if program is not None:
        return make_handler_source(program, folder, environ)
    if not (folder / MODEL_FILE).is_file():
        raise make_no_model_error(folder, f"{MODEL_FILE} or code/inference.py", _find_remedy(folder))
    return make_bundle_source(folder, environ)


def _find_remedy(folder: Path) -> str:
    if next(folder.rglob("saved_model.pb"), None):
        return "the image train-tensorflow serves SavedModels"
    if any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        return "the image train-pytorch serves TorchScript archives, and files of PyTorch with code/inference.py"
    if name := next((path.name for path in sorted(folder.rglob("*.onnx"))), None):
        return f"rename {name} to {MODEL_FILE}, and put it directly in the model folder"
    return f"serve runs bundles, other ONNX models ({MODEL_FILE}), and your own code in code/inference.py"
