"""Finds the bundle or the user's code in the model folder, and defines how a worker loads it."""

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from microjobs.bundle import MODEL_FILE, open_model_folder, read_bundle
from microjobs.contract import Layout
from microjobs.errors import UserError

from .bundle_model import BundleModel
from .handler_model import HandlerModel
from .service import Model
from .user_program import MAX_NAMES, find_program
from .user_requirements import ensure_installed

BUNDLE_QUEUE_SIZE = 128
HANDLER_QUEUE_SIZE = 32
"""Invocations that may wait or run in one worker; further invocations get status 503."""


@dataclass(frozen=True)
class ModelSource:
    """The model to serve.

    Args:
        load: loads the model in a worker.
        loads_slowly: whether the worker serves before the model is loaded.
        labels: labels for the log and the metrics.
        queue_size: invocations that may wait or run in one worker.
    """

    load: Callable[[], Model]
    loads_slowly: bool
    labels: Mapping[str, str]
    queue_size: int


def find_model_source(layout: Layout, environ: Mapping[str, str], cleanup: ExitStack) -> ModelSource:
    """Return the user's own code if the model folder has some, otherwise the bundle.

    Raises:
        UserError: the folder has neither, or the bundle cannot be loaded.
        RestartNeededError: the user's requirements have been installed for another interpreter.
    """
    folder = cleanup.enter_context(open_model_folder(layout.model))
    program = find_program(layout, folder, environ, cleanup)
    return _bundle_source(folder) if program is None else _handler_source(program, folder, environ)


def _bundle_source(folder: Path) -> ModelSource:
    """Load the bundle before the workers are forked: they share it, and an invalid model ends the job at once."""
    if not (folder / MODEL_FILE).is_file():
        raise UserError(_no_model_message(folder))
    bundle = read_bundle(folder)
    model = BundleModel(bundle)
    labels = {"framework": bundle.manifest.framework, "features": str(bundle.manifest.features)}
    return ModelSource(lambda: model, loads_slowly=False, labels=labels, queue_size=BUNDLE_QUEUE_SIZE)


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
    return f"{folder} has no {MODEL_FILE}: it is not a model bundle of the train jobs. It holds {content}; {remedy}"


def _handler_source(program: Path, folder: Path, environ: Mapping[str, str]) -> ModelSource:
    """Load the user's code in each worker, because frameworks with threads of their own do not survive a fork."""
    ensure_installed(program.parent)
    accept = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "")
    load = functools.partial(HandlerModel, program, folder, accept)
    return ModelSource(load, loads_slowly=True, labels={"program": program.name}, queue_size=HANDLER_QUEUE_SIZE)
