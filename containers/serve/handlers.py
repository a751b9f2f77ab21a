"""A user's own model code, in the convention of the sagemaker-inference toolkit.

`code/inference.py` in the model folder may define `model_fn`, `input_fn`, `predict_fn` and `output_fn`, or
`transform_fn` in place of the last three. What it does not define is done as for our own bundles.
"""

import importlib.util
import inspect
import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import formats
import media
from answers import Answer, Problem
from microjobs.bundle import read_bundle
from microjobs.contract import Layout
from microjobs.errors import UserError
from microjobs.interpreter import user_paths
from microjobs.predictor import Predictor
from models import Request

logger = logging.getLogger("microjobs")

TEXT = (media.JSON, media.CSV)
"""Bodies that the convention gives to `input_fn` as str; all others are bytes."""

NAMES = ("model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn")


@dataclass(frozen=True)
class Context:
    """What a handler with one more parameter than the convention's gets in it."""

    model_dir: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def system_properties(self) -> dict[str, Any]:
        return {"model_dir": self.model_dir, "gpu_id": None}

    def get_request_header(self, _index: int, name: str) -> str | None:
        return self.headers.get(name.lower())


def find(layout: Layout, model: Path, environ: Mapping[str, str]) -> Path | None:
    """The user's program, or None if the model folder brings none.

    Raises:
        UserError: SAGEMAKER_PROGRAM names one that is not there.
    """
    submitted = layout.local(environ.get("SAGEMAKER_SUBMIT_DIRECTORY", ""))
    folder = submitted if submitted.is_absolute() and submitted.is_dir() else model / "code"
    named = environ.get("SAGEMAKER_PROGRAM")
    program = folder / (named or "inference.py")
    if program.is_file():
        return program
    if named:
        raise UserError(f"SAGEMAKER_PROGRAM {named!r} is not in {folder}: put it there, or unset the variable")
    return None


class HandlerModel:
    """The user's functions around the user's model; one request at a time, as they need not be thread-safe.

    Raises:
        UserError: the program cannot be imported, lacks what it needs, or cannot load its model.
    """

    quick = False

    def __init__(self, program: Path, model_dir: Path, default_accept: str = "") -> None:
        self._module = _load(program)
        self._context = Context(str(model_dir))
        self._default_accept = default_accept or media.JSON
        self._lock = threading.Lock()
        handlers = {name: getattr(self._module, name, None) for name in NAMES}
        clash = [name for name in ("input_fn", "predict_fn", "output_fn") if handlers[name]]
        if handlers["transform_fn"] and clash:
            raise UserError(f"{program.name} has transform_fn and {clash[0]}: keep one, transform_fn does it all")
        self._model_fn = _adapt(handlers["model_fn"] or _model_fn, 1)
        self._input_fn = _adapt(handlers["input_fn"] or _input_fn, 2)
        self._predict_fn = _adapt(handlers["predict_fn"] or _predict_fn, 2)
        self._output_fn = _adapt(handlers["output_fn"] or _output_fn, 2)
        self._transform_fn = _adapt(handlers["transform_fn"] or self._transform, 4)
        self._model = self._load_model(program)

    def invoke(self, request: Request) -> Answer:
        content_type = request.content_type or media.JSON
        accept = request.accept if request.accept not in ("", "*/*") else self._default_accept
        headers = {"content-type": content_type, "accept": accept}
        headers["x-amzn-sagemaker-custom-attributes"] = request.attributes
        context = Context(self._context.model_dir, headers)
        body = _text(request.body) if media.plain(content_type) in TEXT else request.body
        try:
            with self._lock:
                result = self._transform_fn(context, self._model, body, content_type, accept)
            content, media_type = result if isinstance(result, tuple) else (result, accept)
            return Answer(200, [("content-type", str(media_type))], _bytes(content))
        except Problem:
            raise
        except (Exception, SystemExit) as error:  # the latter would end the thread without an answer
            logger.exception("%s failed on a request", self._module.__name__)
            raise Problem(500, f"the model's own code failed: {_summary(error)}") from error

    def _transform(self, model: Any, body: Any, content_type: str, accept: str, context: Context) -> Any:
        data = self._input_fn(context, body, content_type)
        return self._output_fn(context, self._predict_fn(context, data, model), accept)

    def _load_model(self, program: Path) -> Any:
        try:
            return self._model_fn(self._context, self._context.model_dir)
        except UserError:
            raise
        except Exception as error:
            logger.exception("model_fn failed")
            raise UserError(f"{program.name} could not load the model: {_summary(error)}") from error


def _load(program: Path) -> ModuleType:
    """Import the program with its folder, and then those of the user's PYTHONPATH, first on the path."""
    sys.path[:0] = [str(program.parent), *user_paths()]
    for name in [path.stem for path in program.parent.iterdir()]:
        # `import metrics` in the user's code means theirs, not this job's module of that name.
        if Path(getattr(sys.modules.get(name), "__file__", None) or "/").parent == Path(__file__).parent:
            del sys.modules[name]
    spec = importlib.util.spec_from_file_location(program.stem, program)
    if spec is None or spec.loader is None:
        raise UserError(f"{program.name} is not a Python program: name it *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[program.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        logger.exception("%s cannot be imported", program.name)
        raise UserError(f"{program.name} cannot be imported: {_summary(error)}") from error
    return module


def _adapt(handler: Callable[..., Any], arguments: int) -> Callable[..., Any]:
    """The handler as a function of the context and its arguments, whether or not it takes the context itself."""
    parameters = inspect.signature(handler).parameters.values()
    positional = [item for item in parameters if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)]
    if len(positional) > arguments:
        return lambda context, *values: handler(*values, context)
    return lambda _context, *values: handler(*values)


def _model_fn(model_dir: str) -> Any:
    return Predictor(read_bundle(Path(model_dir)))


def _input_fn(body: bytes | str, content_type: str) -> formats.Numbers:
    given, _ = media.negotiate(content_type, "")
    return formats.decode(body.encode() if isinstance(body, str) else body, given)


def _predict_fn(data: formats.Numbers, model: Any) -> Any:
    if isinstance(model, Predictor):
        return model.predict(formats.as_rows(data, model.features))
    return model(data) if callable(model) else model.predict(data)


def _output_fn(prediction: Any, accept: str) -> tuple[bytes, str]:
    wanted = media.choose(accept, media.JSON)
    if media.FORMATS[wanted] == media.JSON and isinstance(prediction, dict | str):
        return formats.dumps(prediction), wanted
    array = np.asarray(prediction)
    if array.ndim < 2:
        array = array.reshape(-1, 1)
    return formats.encode(np.ascontiguousarray(array), wanted), wanted


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8 text: {error}") from None


def _bytes(content: Any) -> bytes:
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    return content.encode() if isinstance(content, str) else json.dumps(content).encode()


def _summary(error: BaseException) -> str:
    """The error's class and its first line; the traceback is the log's."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
