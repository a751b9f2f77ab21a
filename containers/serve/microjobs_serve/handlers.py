"""Runs a user's own model code, in the convention of the sagemaker-inference toolkit.

A program may define `pre_model_fn`, `model_fn`, `model_warmup_fn`, and `input_fn`, `predict_fn` and `output_fn`, or
`transform_fn` in place of the last three. Defaults stand in for those that it does not define.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from microjobs.errors import UserError

from . import defaults, formats, media, programs
from .answers import Answer, Problem
from .context import Context, answer_headers, checked
from .models import Request
from .programs import Function, summary
from .toolkit.content_types import UTF8_TYPES

logger = logging.getLogger("microjobs")

STATUSES = range(200, 600)
NO_BODY = (204, 304)
"""Statuses whose answers have no body."""


class HandlerModel:
    """The user's functions around the user's model; one request at a time, as they need not be thread-safe.

    Raises:
        UserError: the program cannot be imported, lacks what it needs, or cannot load its model.
    """

    quick = False

    def __init__(self, program: Path, model_dir: Path, default_accept: str = "") -> None:
        self._program = program.name
        self._functions = programs.load(program)
        self._model_dir = str(model_dir)
        self._default_accept = default_accept or media.JSON
        self._lock = threading.Lock()
        predicts = "predict_fn" in self._functions
        self._input_fn = self._function("input_fn", defaults.decode_array if predicts else defaults.decode_rows)
        self._predict_fn = self._function("predict_fn", defaults.predict_rows)
        self._output_fn = self._function(
            "output_fn", defaults.encode_array if predicts else defaults.encode_predictions
        )
        self._transform_fn: Function = self._functions.get("transform_fn", self._transform)
        self._model = self._load_model()

    def _function(self, name: str, default: Function) -> Function:
        return self._functions.get(name, lambda _context, *values: default(*values))

    def invoke(self, request: Request) -> Answer:
        content_type = request.content_type or media.JSON
        accept = request.accept if request.accept not in ("", "*/*") else self._default_accept
        _check_accept(accept)
        context = Context(self._model_dir, _headers(request))
        body: bytes | str = request.body
        if media.plain(content_type) in UTF8_TYPES:
            body = _text(request.body, content_type)
        try:
            with self._lock, _unsupported(415):
                result = self._transform_fn(context, self._model, body, content_type, accept)
            return _answer(result, accept, context)
        except Problem:
            raise
        except (Exception, SystemExit) as error:  # the latter would end the thread without an answer
            logger.exception("%s failed on a request", self._program)
            raise _problem(error) from error

    def _transform(self, context: Context, model: Any, body: bytes | str, content_type: str, accept: str) -> Any:
        data = self._input_fn(context, body, content_type)
        prediction = self._predict_fn(context, data, model)
        with _unsupported(406):
            return self._output_fn(context, prediction, accept)

    def _load_model(self) -> Any:
        context = Context(self._model_dir)
        self._run_at_start("pre_model_fn", context, self._model_dir)
        if "model_fn" in self._functions:
            model = self._run_at_start("model_fn", context, self._model_dir)
        else:
            model = self._load_bundle()
        if not {"predict_fn", "transform_fn"} & self._functions.keys() and not defaults.can_predict(model):
            kind = type(model).__name__
            raise UserError(f"{self._program}: model_fn returned {kind}, which has no predict(): define predict_fn")
        self._run_at_start("model_warmup_fn", context, self._model_dir, model)
        return model

    def _load_bundle(self) -> Any:
        try:
            return defaults.load_bundle(self._model_dir)
        except UserError as error:
            defined = ", ".join(self._functions)
            raise UserError(
                f"{self._program} defines {defined} and no model_fn, so that serve loads a bundle, but {error}"
            ) from error

    def _run_at_start(self, name: str, context: Context, *values: object) -> Any:
        if name not in self._functions:
            return None
        try:
            return self._functions[name](context, *values)
        except UserError:
            raise
        except Exception as error:
            logger.exception("%s failed", name)
            raise UserError(f"{self._program} could not load the model: {summary(error)} (in {name})") from error


def _headers(request: Request) -> dict[str, str]:
    return {} if request.headers is None else dict(request.headers.items())


def _check_accept(accept: str) -> None:
    """An answer's content type may be the request's Accept, as it is."""
    try:
        checked(accept)
    except ValueError:
        raise Problem(406, f"Accept {media.shorten(accept)!r} cannot be met: send printable ASCII characters") from None


def _text(body: bytes, content_type: str) -> str:
    try:
        return formats.utf8(body, content_type).decode()
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8 text: {error}") from None


@contextlib.contextmanager
def _unsupported(status: int) -> Iterator[None]:
    """Answer with this status what the convention calls an unsupported format."""
    try:
        yield
    except Exception as error:
        if not _is(error, "UnsupportedFormatError"):
            raise
        first = str(error).partition("\n")[0].rstrip(".")
        raise Problem(status, f"{first}: send another type, or define input_fn and output_fn") from error


def _is(error: BaseException, name: str) -> bool:
    """Whether an error is the convention's, ours or that of the package itself, which a program may install."""
    return any(kind.__name__ == name for kind in type(error).__mro__)


def _problem(error: BaseException) -> Problem:
    """The answer to an error of the user's code, which may choose its status and message."""
    if not _is(error, "BaseInferenceToolkitError"):
        return Problem(500, f"the model's own code failed: {summary(error)}")
    status = getattr(error, "status_code", None)
    return Problem(
        status if isinstance(status, int) and status in STATUSES else 500, str(getattr(error, "message", ""))
    )


def _answer(result: Any, accept: str, context: Context) -> Answer:
    """The answer for what transform_fn or output_fn returned: a response, or a response and its content type."""
    content, media_type = (result[0], result[1]) if isinstance(result, tuple) else (result, accept)
    body = _bytes(content)
    processor = context.request()
    status = processor.get_response_status_code()
    if status not in STATUSES:
        raise ValueError(f"{status!r} is no status of an answer: set one from 200 to 599")
    headers = [("content-type", checked(media_type))] if media_type else []
    return Answer(int(status), [*headers, *answer_headers(processor)], b"" if status in NO_BODY else body)


def _bytes(content: Any) -> bytes:
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    return content.encode() if isinstance(content, str) else json.dumps(content, indent=2).encode()
