"""Finds and imports a user's program, and reads its functions by the convention of `sagemaker-inference`."""

import difflib
import importlib.util
import inspect
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from microjobs import archives, source
from microjobs.contract import Layout
from microjobs.errors import UserError
from microjobs.interpreter import read_user_paths

from . import toolkit

logger = logging.getLogger("microjobs")

SUBMIT_DIRECTORY_VARIABLE = "SAGEMAKER_SUBMIT_DIRECTORY"

PARAMETERS_BY_FUNCTION = {
    "pre_model_fn": ("model_dir",),
    "model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "transform_fn": ("model", "input_data", "content_type", "accept"),
    "input_fn": ("input_data", "content_type"),
    "predict_fn": ("data", "model"),
    "output_fn": ("prediction", "accept"),
}
"""Functions of the convention and their parameters. Each may take one more parameter, `context`."""

TRANSFORM_PARTS = ("input_fn", "predict_fn", "output_fn")
"""Functions that transform_fn replaces."""

TENSORFLOW_SERVING_FUNCTIONS = ("handler", "input_handler", "output_handler")
"""Functions of the convention of AWS's image for TensorFlow Serving."""

MAX_NAMES = 8
"""Maximum number of file names in an error."""

MIN_TYPO_SIMILARITY = 0.85
"""Minimum similarity of a misspelt name to the right name. For model_fn, modle_fn has 0.88, and get_model_fn 0.80."""

Handler = Callable[..., Any]
"""A handler that takes the context as its first argument, even if the user's function does not take it."""


def find_program(layout: Layout, model_folder: Path, environ: Mapping[str, str], cleanup: ExitStack) -> Path | None:
    """Return the path of the user's program, or None if there is none.

    Raises:
        UserError: SAGEMAKER_PROGRAM or SAGEMAKER_SUBMIT_DIRECTORY names something that does not exist.
    """
    folder = _find_code_folder(layout, model_folder, environ.get(SUBMIT_DIRECTORY_VARIABLE, ""), cleanup)
    program = environ.get("SAGEMAKER_PROGRAM")
    for name in (program, f"{program}.py") if program else ("inference.py",):
        if (folder / name).is_file():
            return folder / name
    if program:
        files = ", ".join(sorted(path.name for path in folder.glob("*"))[:MAX_NAMES]) or "nothing"
        raise UserError(
            f"SAGEMAKER_PROGRAM {program!r} is not in {folder}, which holds {files}: add it, or correct the variable"
        )
    return None


def _find_code_folder(layout: Layout, model_folder: Path, uri: str, cleanup: ExitStack) -> Path:
    """Return the folder with the user's code, which is fetched and unpacked if necessary."""
    local_path = layout.resolve_local_path(uri.removeprefix("file://"))
    if not uri or local_path == layout.model / "code":
        return model_folder / "code"
    if local_path.is_relative_to(layout.model):  # `model_folder` differs from it if the model was an archive
        uri = str(model_folder / local_path.relative_to(layout.model))
    work_folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="code-")))
    code = source.locate(layout, uri, SUBMIT_DIRECTORY_VARIABLE, work_folder)
    if code.is_dir():
        return code
    archives.unpack(code, work_folder / "code")
    return work_folder / "code"


def load_handlers(program: Path) -> dict[str, Handler]:
    """Return the program's handlers by name.

    Raises:
        UserError: the program cannot be imported, or its functions do not follow the convention.
    """
    module = import_program(program)
    _check_names(program.name, module)
    functions = {name: item for name in PARAMETERS_BY_FUNCTION if (item := getattr(module, name, None))}
    parts = [name for name in TRANSFORM_PARTS if name in functions]
    if "transform_fn" in functions and parts:
        raise UserError(
            f"{program.name} has transform_fn and {parts[0]}: remove one, because transform_fn replaces {parts[0]}"
        )
    return {
        name: _make_handler(f"{program.name}: {name}", item, PARAMETERS_BY_FUNCTION[name])
        for name, item in functions.items()
    }


def import_program(program: Path) -> ModuleType:
    """Import the program once. Before that, put its folder and the folders of PYTHONPATH first on `sys.path`.

    Raises:
        UserError: the program is not a Python program, or its import failed.
    """
    imported_module = sys.modules.get(program.stem)
    if imported_module is not None and getattr(imported_module, "__file__", None) == str(program):
        return imported_module
    toolkit.make_package_importable()
    sys.path[:0] = [str(program.parent), *read_user_paths()]
    spec = importlib.util.spec_from_file_location(program.stem, program)
    if spec is None or spec.loader is None:
        raise UserError(f"{program.name} is not a Python program: name it *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[program.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        logger.exception("%s cannot be imported", program.name)
        raise UserError(f"{program.name} cannot be imported: {summarize(error)}") from error
    return module


def _check_names(program: str, module: ModuleType) -> None:
    """Reject programs of another convention, and misspelt functions, which would never be called."""
    function_names = [name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != "_"]
    defined_names = [name for name in PARAMETERS_BY_FUNCTION if getattr(module, name, None)]
    replaced_names = TRANSFORM_PARTS if "transform_fn" in defined_names else ()
    typos = [(name, intended_name) for name in function_names if (intended_name := _find_intended_name(name))]
    expected_names = ", ".join(PARAMETERS_BY_FUNCTION)
    definitions = f"{program} defines {', '.join(function_names) or 'no functions'}"
    if not defined_names:
        hint = "".join(f" (did you mean {intended_name} instead of {name}?)" for name, intended_name in typos[:1])
        if not hint and (handlers := [name for name in TENSORFLOW_SERVING_FUNCTIONS if name in function_names]):
            verb, pronoun = ("are", "them") if len(handlers) > 1 else ("is", "it")
            names = " and ".join(handlers)
            hint = f" ({names} {verb} for TensorFlow Serving: the image train-tensorflow calls {pronoun})"
        raise UserError(f"{definitions}, but serve calls only {expected_names}{hint}")
    if {"input_handler", "output_handler"} <= set(function_names):
        raise UserError(
            f"{program} defines {defined_names[0]}, and also input_handler and output_handler for TensorFlow Serving, "
            "which serve does not call: remove them, or move their code into input_fn and output_fn"
        )
    for name, intended_name in typos:
        if intended_name not in (*defined_names, *replaced_names):
            raise UserError(
                f"{definitions}. serve does not call {name}: did you mean {intended_name}? It calls {expected_names}"
            )


def _find_intended_name(name: str) -> str | None:
    """Return the name of the convention that `name` misspells, or None."""
    # A name such as my_predict_fn belongs to a helper, and many programs have a helper with the name `transform`.
    if name in PARAMETERS_BY_FUNCTION or any(
        known in name or known == f"{name}_fn" for known in PARAMETERS_BY_FUNCTION
    ):
        return None
    return next(
        iter(difflib.get_close_matches(name.lower(), PARAMETERS_BY_FUNCTION, n=1, cutoff=MIN_TYPO_SIMILARITY)), None
    )


def _make_handler(function_label: str, function: Callable[..., Any], parameters: tuple[str, ...]) -> Handler:
    """Return a handler that calls the user's function.

    Raises:
        UserError: the user's function does not accept the convention's arguments.
    """
    if not callable(function):
        raise UserError(f"{function_label} is {type(function).__name__}, not a function: define it with `def`")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise UserError(f"{function_label} is async: define it without async; a stream is a generator with yield")
    if takes_context(function_label, function, parameters):
        return lambda context, *values: function(*values, context)
    return lambda _context, *values: function(*values)


def takes_context(function_label: str, function: Callable[..., Any], parameters: tuple[str, ...]) -> bool:
    """Return whether the user's function has a parameter for the context after the parameters of the convention.

    Raises:
        UserError: the function does not accept the convention's arguments.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions of extension modules have no signature
        return False
    for count in (len(parameters) + 1, len(parameters)):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count > len(parameters) and _has_context_parameter(signature, len(parameters))
    expected = ", ".join(parameters)
    raise UserError(f"{function_label} takes {signature}: it must take ({expected}), or ({expected}, context)")


def _has_context_parameter(signature: inspect.Signature, count: int) -> bool:
    """Return whether the parameter after the first `count` parameters is the last one, or has the name `context`."""
    names = [
        item.name
        for item in signature.parameters.values()
        if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)
    ]
    return len(names) == count + 1 or "context" in names[count : count + 1]


def summarize(error: BaseException) -> str:
    """Return the error's class and the first line of its message; the log has the traceback."""
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
