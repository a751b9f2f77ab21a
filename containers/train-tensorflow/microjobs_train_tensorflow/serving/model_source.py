"""Finds the model to serve: SavedModels, the user's code, or a bundle. Only loading the model imports TensorFlow."""

import functools
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from microjobs.bundle import MODEL_FILE, open_model_folder
from microjobs.contract import Layout
from microjobs.errors import UserError
from microjobs.hosting.model_source import (
    HANDLER_QUEUE_SIZE,
    ModelSource,
    load_handler_model,
    make_bundle_source,
    make_no_model_error,
)
from microjobs.hosting.service import Model
from microjobs.hosting.user_program import find_program, import_program
from microjobs.hosting.user_requirements import ensure_installed

from ..environment import prepare_tensorflow
from .rest_api import PREFIX
from .servables import Versions, find_servables

DEFAULT_MODEL_VARIABLE = "SAGEMAKER_TFS_DEFAULT_MODEL_NAME"
"""Variable of AWS's image with the name of the model for requests that name no model."""

REMEDY = "save the model with model.export, as export/NAME/1 or 1"


def find_model_source(layout: Layout, environ: Mapping[str, str], cleanup: ExitStack) -> ModelSource:
    """Return a source with the SavedModels of the model folder and the user's code; if neither exists, with the bundle.

    Raises:
        UserError: the folder has no model, or the bundle cannot be loaded.
        RestartNeededError: the server must restart with the interpreter that has the user's requirements.
    """
    folder = cleanup.enter_context(open_model_folder(layout.model))
    program = find_program(layout, folder, environ, cleanup)
    servables = find_servables(folder)
    if program is None and not servables:
        if (folder / MODEL_FILE).is_file():
            return make_bundle_source(folder, environ)
        raise make_no_model_error(folder, "SavedModel, code/inference.py or bundle of the train jobs", REMEDY)
    if program is not None:
        ensure_installed(program.parent)
    default_name = _choose_default(servables, environ.get(DEFAULT_MODEL_VARIABLE, ""))
    load = functools.partial(_load, servables, default_name, program, folder, environ)
    labels = {"program": program.name} if program else {"model": default_name}
    return ModelSource(
        load, loads_in_background=True, labels=labels, queue_size=HANDLER_QUEUE_SIZE, route_prefix=PREFIX
    )


def _choose_default(servables: Mapping[str, Versions], name: str) -> str:
    if name and name not in servables:
        model_names = ", ".join(servables) or "no SavedModel"
        raise UserError(
            f"{DEFAULT_MODEL_VARIABLE} is {name!r}, but the model folder has {model_names}: correct or "
            "remove the variable"
        )
    return name or next(iter(servables), "")


def _load(
    servables: Mapping[str, Versions], default_name: str, program: Path | None, folder: Path, environ: Mapping[str, str]
) -> Model:
    """Load the models in a worker. A program that follows another convention runs as in the image serve.

    TensorFlow is configured before the program is imported, because it cannot be configured any more when the program
    has created a tensor.
    """
    prepare_tensorflow()
    if servables:
        from .saved_models import configure

        configure()
    if program is not None:
        sys.path.insert(0, str(program.parent / "lib"))  # AWS's image finds users' packages in code/lib first
        from . import handlers

        if not handlers.follows_convention(import_program(program)):
            return load_handler_model(program, folder, environ)
        if not servables:
            raise make_no_model_error(folder, f"SavedModel, which {program.name} needs", REMEDY)
    from .model import TensorFlowModel
    from .saved_models import load_models

    return TensorFlowModel(load_models(servables), default_name, program)
