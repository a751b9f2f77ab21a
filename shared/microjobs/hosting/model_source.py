"""Sources of models: bundles, other ONNX models, and users' programs. A worker loads its model from the source."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from microjobs.bundle import BUNDLE_FILES, MODEL_FILE, read_bundle
from microjobs.contract import Layout, is_multi_model
from microjobs.errors import UserError

from .batched_handler_model import BatchedHandlerModel
from .batching import read_settings
from .bundle_model import BundleModel
from .default_handlers import ChooseDefaults, choose_bundle_defaults, load_bundle
from .handler_model import HandlerModel
from .onnx_model import OnnxModel
from .service import Model
from .user_program import MAX_NAMES
from .user_requirements import ensure_installed

BUNDLE_QUEUE_SIZE = 128
HANDLER_QUEUE_SIZE = 32
"""Maximum number of invocations that wait or run in one worker. Further invocations get status 503."""


DEFAULT_ACCEPT_VARIABLE = "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"
"""Environment variable: the value of Accept for requests without this header. `make_bundle_source` ignores it."""


@dataclass(frozen=True)
class ModelSource:
    """The model to serve.

    Args:
        load: function that loads the model in a worker.
        loads_in_background: whether the worker serves before the model is loaded, because a user's program or a
            framework may need much time to load it.
        labels: labels for the log and the metrics.
        queue_size: maximum number of invocations that wait or run in one worker.
        route_prefix: requests whose path begins with it go to the model, whatever their method; empty if the model has
            no routes of its own.
        threads: number of invocations that a worker runs at the same time.
        max_workers: maximum number of workers; None if the environment decides.
    """

    load: Callable[[], Model]
    loads_in_background: bool
    labels: Mapping[str, str]
    queue_size: int
    route_prefix: str = ""
    threads: int = 1
    max_workers: int | None = None


FindModelSource = Callable[[Layout, Mapping[str, str], ExitStack], ModelSource]
"""Function of an image that finds the model to serve. It may put temporary folders into the stack.

It raises UserError if there is no model, and RestartNeededError if the server must restart with the interpreter that
has the user's requirements."""


def make_bundle_source(folder: Path, environ: Mapping[str, str]) -> ModelSource:
    """Load the bundle in a folder, and return its source.

    The bundle is loaded before the workers are forked, so that they share its memory, and so that an invalid
    model ends the server immediately. A model.onnx without other files of a bundle is an ONNX model of any kind.

    Raises:
        UserError: the bundle cannot be loaded.
    """
    if (folder / MODEL_FILE).is_file() and not any((folder / name).exists() for name in BUNDLE_FILES):
        return _make_onnx_source(folder / MODEL_FILE)
    bundle = read_bundle(folder)
    is_batched = read_settings(environ).mode != "off" and not is_multi_model(environ)
    model = BundleModel(bundle, is_batched=is_batched)
    labels = {"framework": bundle.manifest.framework, "features": str(bundle.manifest.features)}
    return ModelSource(lambda: model, loads_in_background=False, labels=labels, queue_size=BUNDLE_QUEUE_SIZE)


def _make_onnx_source(path: Path) -> ModelSource:
    model = OnnxModel(path)
    labels = {"model": path.name, "inputs": model.describe()}
    return ModelSource(lambda: model, loads_in_background=False, labels=labels, queue_size=BUNDLE_QUEUE_SIZE)


def make_handler_source(
    program: Path | None,
    folder: Path,
    environ: Mapping[str, str],
    choose_defaults: ChooseDefaults = choose_bundle_defaults,
    model: str = "",
) -> ModelSource:
    """Install the requirements of a user's program, and return the source of its model.

    Each worker loads the program after the fork, because a framework with threads does not survive a fork.

    Args:
        program: the user's program; None if all functions are the defaults.
        choose_defaults: see `HandlerModel`.
        model: name of the model, for the log and the metrics, if there is no program.

    Raises:
        UserError: the requirements cannot be installed.
        RestartNeededError: the server must restart with the interpreter that has the requirements.
    """
    if program:
        ensure_installed(program.parent)
    if choose_defaults is choose_bundle_defaults and program and not is_multi_model(environ):
        _load_shared_bundle(program, folder)
    load = functools.partial(load_handler_model, program, folder, environ, choose_defaults)
    labels = {"program": program.name} if program else {"model": model}
    return ModelSource(load, loads_in_background=True, labels=labels, queue_size=HANDLER_QUEUE_SIZE)


def load_handler_model(
    program: Path | None,
    folder: Path,
    environ: Mapping[str, str],
    choose_defaults: ChooseDefaults = choose_bundle_defaults,
) -> HandlerModel:
    """Load a user's program with the settings of the environment; see `HandlerModel`."""
    model_class = BatchedHandlerModel if read_settings(environ).mode == "on" else HandlerModel
    return model_class(program, folder, environ.get(DEFAULT_ACCEPT_VARIABLE, ""), choose_defaults)


def _load_shared_bundle(program: Path, folder: Path) -> None:
    """Load the bundle that the default model_fn will return, so that the workers share its memory.

    The program cannot be imported before the fork. If its text does not contain `model_fn`, it does not define this
    function.
    """
    if (folder / MODEL_FILE).is_file() and "model_fn" not in program.read_text(errors="replace"):
        with contextlib.suppress(UserError):  # each worker reports this error, and names the program
            load_bundle(str(folder))


def make_no_model_error(folder: Path, expected: str, remedy: str) -> UserError:
    """Return the error for a model folder without a model; it names the files of the folder and the remedy.

    Args:
        expected: the missing content of the folder.
        remedy: the remedy if the files of the folder do not suggest another one.
    """
    scripts = sorted(path.name for path in (folder / "code").glob("*.py"))
    if (folder / "inference.py").is_file():
        remedy = "move inference.py into the folder code/"
    elif scripts:
        names = ", ".join(scripts[:MAX_NAMES])
        remedy = f"code/ has {names}: name the program inference.py, or set SAGEMAKER_PROGRAM"
    entries = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    content = ", ".join(entries[:MAX_NAMES]) or "nothing"
    return UserError(f"{folder} has no {expected}. It contains {content}; {remedy}")
