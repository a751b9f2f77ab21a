"""What the model folder holds, and how a worker gets and runs it."""

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from microjobs import bundle as bundles
from microjobs.contract import Layout
from microjobs.errors import UserError

from . import handlers, programs, requirements
from .models import BundleModel, Model

BUNDLE_IN_FLIGHT = 128
HANDLER_IN_FLIGHT = 32
"""Requests that may wait in one worker for their prediction, or run; one more is answered 503."""


@dataclass(frozen=True)
class Served:
    """What is served: how a worker gets it, and how many requests may wait for it."""

    load: Callable[[], Model]
    slow: bool
    labels: Mapping[str, str]
    in_flight: int


def find(layout: Layout, environ: Mapping[str, str], cleanup: ExitStack) -> Served:
    """What there is to serve: a user's own code if the model folder brings some, else a bundle.

    Raises:
        UserError: there is neither, or the bundle cannot be loaded.
        RestartNeededError: the user's requirements were installed for another interpreter.
    """
    folder = cleanup.enter_context(bundles.extracted(layout.model))
    program = programs.find(layout, folder, environ, cleanup)
    return _bundle(folder) if program is None else _handlers(program, folder, environ)


def _bundle(folder: Path) -> Served:
    """A bundle, loaded here before the workers are forked: once for all, and a bad model ends the job at once."""
    if not (folder / bundles.MODEL_FILE).is_file():
        raise UserError(_nothing_to_serve(folder))
    bundle = bundles.read_bundle(folder)
    model = BundleModel(bundle)
    labels = {"framework": bundle.manifest.framework, "features": str(bundle.manifest.features)}
    return Served(lambda: model, slow=False, labels=labels, in_flight=BUNDLE_IN_FLIGHT)


def _nothing_to_serve(folder: Path) -> str:
    """Name what was found and what is missing."""
    scripts = sorted(path.name for path in (folder / "code").glob("*.py"))
    if (folder / "inference.py").is_file():
        remedy = "move inference.py into the folder code/"
    elif scripts:
        some = ", ".join(scripts[: programs.MAX_NAMES])
        remedy = f"code/ has {some}: name the program inference.py, or set SAGEMAKER_PROGRAM"
    else:
        remedy = "serve runs bundles of the train jobs, and your own code in code/inference.py"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    found = ", ".join(names[: programs.MAX_NAMES]) or "nothing"
    return (
        f"{folder} has no {bundles.MODEL_FILE}: it is not a model bundle of the train jobs. It holds {found}; {remedy}"
    )


def _handlers(program: Path, folder: Path, environ: Mapping[str, str]) -> Served:
    """A user's code, loaded in each worker: frameworks with threads of their own do not survive a fork."""
    requirements.require(program.parent)
    accept = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "")
    load = functools.partial(handlers.HandlerModel, program, folder, accept)
    return Served(load, slow=True, labels={"program": program.name}, in_flight=HANDLER_IN_FLIGHT)
