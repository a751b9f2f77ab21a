"""A user's program: where it lies, and which functions of the sagemaker-inference convention it defines."""

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
from microjobs.interpreter import user_paths

from . import toolkit

logger = logging.getLogger("microjobs")

SUBMIT_DIRECTORY = "SAGEMAKER_SUBMIT_DIRECTORY"

PARAMETERS = {
    "pre_model_fn": ("model_dir",),
    "model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "transform_fn": ("model", "input_data", "content_type", "accept"),
    "input_fn": ("input_data", "content_type"),
    "predict_fn": ("data", "model"),
    "output_fn": ("prediction", "accept"),
}
"""The convention's functions and their parameters; each may take `context` after them."""

TRANSFORM_PARTS = ("input_fn", "predict_fn", "output_fn")
"""The functions that transform_fn replaces."""

FOREIGN = ("handler", "input_handler", "output_handler")
"""The functions of TensorFlow Serving's image."""

MAX_NAMES = 8
"""Names of files in an error."""

LIKELY_TYPO = 0.85
"""Similarity from which a name is taken for a misspelt one: 0.88 for modle_fn, 0.80 for get_model_fn."""

Function = Callable[..., Any]
"""A handler that takes the context first, whether or not the user's function takes it."""


def find(layout: Layout, model: Path, environ: Mapping[str, str], cleanup: ExitStack) -> Path | None:
    """The user's program, or None if there is none.

    Raises:
        UserError: SAGEMAKER_PROGRAM or SAGEMAKER_SUBMIT_DIRECTORY names something that is not there.
    """
    folder = _code(layout, model, environ.get(SUBMIT_DIRECTORY, ""), cleanup)
    named = environ.get("SAGEMAKER_PROGRAM")
    for name in (named, f"{named}.py") if named else ("inference.py",):
        if (folder / name).is_file():
            return folder / name
    if named:
        holds = ", ".join(sorted(path.name for path in folder.glob("*"))[:MAX_NAMES]) or "nothing"
        raise UserError(f"SAGEMAKER_PROGRAM {named!r} is not in {folder}, which holds {holds}")
    return None


def _code(layout: Layout, model: Path, uri: str, cleanup: ExitStack) -> Path:
    """The folder with the user's code, fetched and unpacked where it has to be."""
    local = layout.local(uri.removeprefix("file://"))
    if not uri or local == layout.model / "code":
        return model / "code"
    if local.is_relative_to(layout.model):  # the model may have been unpacked elsewhere
        uri = str(model / local.relative_to(layout.model))
    work = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="code-")))
    found = source.locate(layout, uri, SUBMIT_DIRECTORY, work)
    if found.is_dir():
        return found
    archives.unpack(found, work / "code")
    return work / "code"


def load(program: Path) -> dict[str, Function]:
    """The program's handlers by name.

    Raises:
        UserError: it cannot be imported, or its functions are not the convention's.
    """
    module = _import(program)
    _check_names(program.name, module)
    found = {name: handler for name in PARAMETERS if (handler := getattr(module, name, None))}
    parts = [name for name in TRANSFORM_PARTS if name in found]
    if "transform_fn" in found and parts:
        raise UserError(f"{program.name} has transform_fn and {parts[0]}: keep one, transform_fn does it all")
    return {name: _adapt(f"{program.name}: {name}", handler, PARAMETERS[name]) for name, handler in found.items()}


def _import(program: Path) -> ModuleType:
    """Import the program with its folder, and then those of the user's PYTHONPATH, first on the path."""
    toolkit.make_importable()
    sys.path[:0] = [str(program.parent), *user_paths()]
    spec = importlib.util.spec_from_file_location(program.stem, program)
    if spec is None or spec.loader is None:
        raise UserError(f"{program.name} is not a Python program: name it *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[program.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        logger.exception("%s cannot be imported", program.name)
        raise UserError(f"{program.name} cannot be imported: {summary(error)}") from error
    return module


def _check_names(program: str, module: ModuleType) -> None:
    """Refuse programs of another convention, and misspelt functions, which would never be called."""
    functions = [name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != "_"]
    present = [name for name in PARAMETERS if getattr(module, name, None)]
    expected = ", ".join(PARAMETERS)
    found = f"{program} defines {', '.join(functions) or 'no functions'}"
    if not present:
        raise UserError(f"{found}, and none that serve calls{_hint(functions)}: {expected}")
    for name in functions:
        near = _nearest(name)
        if near and near not in present and not _is_replaced(near, present):
            raise UserError(f"{found}. serve does not call {name}: did you mean {near}? It calls {expected}")


def _hint(functions: list[str]) -> str:
    near = next(((name, near) for name in functions if (near := _nearest(name))), None)
    if near is not None:
        return f" (did you mean {near[1]} by {near[0]}?)"
    foreign = [name for name in FOREIGN if name in functions]
    return f" ({' and '.join(foreign)} are for TensorFlow Serving's image)" if foreign else ""


def _nearest(name: str) -> str | None:
    """The convention's name that this one misspells, if it does."""
    # my_predict_fn is a helper of predict_fn, and many programs have a helper transform.
    if name in PARAMETERS or any(known in name or known == f"{name}_fn" for known in PARAMETERS):
        return None
    return next(iter(difflib.get_close_matches(name.lower(), PARAMETERS, 1, LIKELY_TYPO)), None)


def _is_replaced(name: str, present: list[str]) -> bool:
    return name in TRANSFORM_PARTS and "transform_fn" in present


def _adapt(where: str, handler: Function, names: tuple[str, ...]) -> Function:
    """A function of the context and the convention's arguments.

    Raises:
        UserError: the user's function cannot be called with them.
    """
    if not callable(handler):
        raise UserError(f"{where} is {type(handler).__name__}, not a function")
    if _takes_context(where, handler, names):
        return lambda context, *values: handler(*values, context)
    return lambda _context, *values: handler(*values)


def _takes_context(where: str, handler: Function, names: tuple[str, ...]) -> bool:
    try:
        signature = inspect.signature(handler)
    except ValueError:  # some functions of extension modules have none
        return False
    for arguments in (len(names) + 1, len(names)):
        try:
            signature.bind(*range(arguments))
        except TypeError:
            continue
        return arguments > len(names) and _names_one_more(signature, len(names))
    called = ", ".join(names)
    raise UserError(f"{where} takes {signature}: it must take ({called}), or ({called}, context)")


def _names_one_more(signature: inspect.Signature, arguments: int) -> bool:
    """Whether exactly one parameter follows the convention's; of several that are optional, none is the context."""
    positional = [
        item.name
        for item in signature.parameters.values()
        if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)
    ]
    return len(positional) == arguments + 1 or "context" in positional[arguments : arguments + 1]


def summary(error: BaseException) -> str:
    """The error's class and the first line of its message; the traceback is the log's."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
