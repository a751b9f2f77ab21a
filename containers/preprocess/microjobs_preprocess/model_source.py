"""Finds the model to serve: the user's code for a scikit-learn model, or a bundle. Does not import scikit-learn."""

from collections.abc import Mapping
from contextlib import ExitStack

from microjobs.bundle import MODEL_FILE, open_model_folder
from microjobs.contract import Layout
from microjobs.hosting.model_source import ModelSource, make_bundle_source, make_handler_source, make_no_model_error
from microjobs.hosting.user_program import find_program

from .default_functions import choose_defaults

REMEDY = "add code/inference.py with model_fn, or set SAGEMAKER_PROGRAM and SAGEMAKER_SUBMIT_DIRECTORY"


def find_model_source(layout: Layout, environ: Mapping[str, str], cleanup: ExitStack) -> ModelSource:
    """Return the user's own code if there is some, otherwise the bundle.

    Raises:
        UserError: the folder has neither, or the bundle cannot be loaded.
        RestartNeededError: the server must restart with the interpreter that has the user's requirements.
    """
    folder = cleanup.enter_context(open_model_folder(layout.model))
    program = find_program(layout, folder, environ, cleanup)
    if program is not None:
        return make_handler_source(program, folder, environ, choose_defaults)
    if (folder / MODEL_FILE).is_file():
        return make_bundle_source(folder, environ)
    raise make_no_model_error(folder, "code/inference.py or bundle of the train jobs", REMEDY)
