"""Runs a user's own model code, by the convention of the `sagemaker-inference` toolkit.

A program can define `pre_model_fn`, `model_fn`, `model_warmup_fn`, and either `transform_fn` or any of `input_fn`,
`predict_fn` and `output_fn`. Default functions replace the functions that the program does not define.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from microjobs.errors import UserError

from .default_handlers import ChooseDefaults, can_predict, choose_bundle_defaults
from .formats import to_utf8
from .handler_context import Context, check_header, list_response_headers
from .media_types import JSON, parse_media_type
from .responses import HttpError, HttpResponse, ResponseStream, make_stream_response, quote
from .service import BatchModel, Invocation
from .toolkit.content_types import UTF8_TYPES
from .user_program import Handler, load_handlers, summarize

logger = logging.getLogger("microjobs")

STATUSES = range(200, 600)
STATUSES_WITHOUT_BODY = (204, 304)
_END = object()
"""Value that stands for the end of a stream."""


class HandlerModel:
    """A `service.Model`: the user's functions and model.

    It runs one invocation at a time, because user code is not always thread-safe.

    Args:
        program: the user's program; None if all functions are the defaults.
        default_accept: value of Accept for requests that accept any type; empty for JSON.
        choose_defaults: function that returns the defaults, for the functions that the program does not define.

    Raises:
        UserError: the program cannot be imported, a function is missing, or the model cannot be loaded.
    """

    is_fast = False
    has_routes = False

    def __init__(
        self,
        program: Path | None,
        model_dir: Path,
        default_accept: str = "",
        choose_defaults: ChooseDefaults = choose_bundle_defaults,
    ) -> None:
        self._program = program.name if program else "the model"
        self._handlers = load_handlers(program) if program else {}
        self._model_dir = str(model_dir)
        self._default_accept = default_accept or JSON
        self._lock = threading.Lock()
        defaults = self._defaults = choose_defaults(self._handlers, model_dir)
        self._input_fn = self._choose_handler("input_fn", defaults.input_fn)
        self._predict_fn = self._choose_handler("predict_fn", defaults.predict_fn)
        self._output_fn = self._choose_handler("output_fn", defaults.output_fn)
        self._transform_fn: Handler = self._handlers.get("transform_fn", self._transform)
        self._model = self._load_model()

    @property
    def batch_model(self) -> BatchModel | None:
        """None, because this model answers one invocation at a time."""
        return None

    def _choose_handler(self, name: str, default: Callable[..., Any]) -> Handler:
        return self._handlers.get(name, lambda _context, *values: default(*values))

    def invoke(self, invocation: Invocation) -> HttpResponse:
        body, content_type, accept, context = self._make_arguments(invocation)
        with self._run_user_code(415):
            result = self._transform_fn(context, self._model, body, content_type, accept)
            return self._respond(result, accept, context)

    def _make_arguments(self, invocation: Invocation) -> tuple[bytes | str, str, str, Context]:
        """Return the arguments of the user's functions: the body, Content-Type, Accept and the context."""
        content_type = invocation.content_type or JSON
        accept = invocation.accept if invocation.accept not in ("", "*/*") else self._default_accept
        if not (accept.isascii() and accept.isprintable()):  # Accept can become the content type of the response
            raise HttpError(406, f"Accept {quote(accept)} is not supported: send printable ASCII characters")
        context = Context(self._model_dir, dict(invocation.headers.items()) if invocation.headers else {})
        body: bytes | str = invocation.body
        if parse_media_type(content_type) in UTF8_TYPES:
            try:
                body = to_utf8(invocation.body, content_type).decode()
            except UnicodeDecodeError as error:
                raise HttpError(400, f"the body is not UTF-8 text: {error}") from None
        return body, content_type, accept, context

    @contextlib.contextmanager
    def _run_user_code(self, unsupported_status: int) -> Iterator[None]:
        """Convert errors of the user's code to HttpError.

        Args:
            unsupported_status: the status if the code does not support a format.
        """
        try:
            with self._lock, _convert_unsupported_format(unsupported_status):
                yield
        except HttpError:
            raise
        except (Exception, SystemExit) as error:  # SystemExit would end the thread without a response
            logger.exception("%s failed on a request", self._program)
            raise _make_http_error(error) from error

    def _transform(self, context: Context, model: Any, body: bytes | str, content_type: str, accept: str) -> Any:
        data = self._input_fn(context, body, content_type)
        prediction = self._predict_fn(context, data, model)
        if isinstance(prediction, Iterator) and "output_fn" not in self._handlers:
            return prediction
        with _convert_unsupported_format(406):
            return self._output_fn(context, prediction, accept)

    def _respond(self, result: Any, accept: str, context: Context) -> HttpResponse:
        """Convert the result of transform_fn or output_fn to a response. An iterator becomes a response stream."""
        is_pair = isinstance(result, tuple) and len(result) > 1  # AWS's toolkit ignores further items
        content, media_type = result[:2] if is_pair else (result, accept)
        if not isinstance(content, Iterator):
            return make_response(result, accept, context)
        head = partial(make_response, (b"", media_type), accept, context)
        return make_stream_response(ResponseStream(self._read_parts(content), head))

    def _read_parts(self, values: Iterator[Any]) -> Generator[bytes, None, None]:
        """Yield the parts that the user's code yields. While a client reads them, other requests can run."""
        try:
            while True:
                with self._run_user_code(406):
                    if (value := next(values, _END)) is _END:
                        return
                    part = _to_part(value)
                yield part
        finally:
            if close := getattr(values, "close", None):
                with contextlib.suppress(HttpError), self._run_user_code(500):
                    close()

    def _load_model(self) -> Any:
        context = Context(self._model_dir)
        self._run_at_start("pre_model_fn", context, self._model_dir)
        if "model_fn" in self._handlers:
            model = self._run_at_start("model_fn", context, self._model_dir)
        else:
            model = self._load_default_model()
        if not {"predict_fn", "transform_fn"} & self._handlers.keys() and not can_predict(model):
            type_name = type(model).__name__
            raise UserError(
                f"{self._program}: model_fn returned {type_name}, which has no predict(): define predict_fn"
            )
        self._run_at_start("model_warmup_fn", context, self._model_dir, model)
        return model

    def _load_default_model(self) -> Any:
        try:
            return self._defaults.model_fn(self._model_dir)
        except UserError as error:
            if not self._handlers:
                raise
            raise UserError(f"{self._program} does not define model_fn, and the default failed: {error}") from error

    def _run_at_start(self, name: str, context: Context, *values: object) -> Any:
        if name not in self._handlers:
            return None
        try:
            return self._handlers[name](context, *values)
        except UserError:
            raise
        except Exception as error:
            logger.exception("%s failed", name)
            raise UserError(f"{self._program} could not load the model: {summarize(error)} (in {name})") from error


@contextlib.contextmanager
def _convert_unsupported_format(status: int) -> Iterator[None]:
    """Convert the convention's UnsupportedFormatError to an error with this status."""
    try:
        yield
    except Exception as error:
        if not _has_class(error, "UnsupportedFormatError"):
            raise
        reason = str(error).partition("\n")[0].rstrip(".")
        raise HttpError(status, f"{reason}: send another type, or define input_fn and output_fn") from error


def _has_class(error: BaseException, name: str) -> bool:
    """Return whether a class of the error has this name, in this project or in an installed `sagemaker-inference`."""
    return any(class_.__name__ == name for class_ in type(error).__mro__)


def _make_http_error(error: BaseException) -> HttpError:
    """Convert an error of the user's code, which can choose the status and the message."""
    if not _has_class(error, "BaseInferenceToolkitError"):
        return HttpError(500, f"the model's own code failed: {summarize(error)}")
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or status not in STATUSES:
        status = 500
    return HttpError(status, str(getattr(error, "message", "")))


def make_response(result: Any, accept: str, context: Context) -> HttpResponse:
    """Convert the result of transform_fn or output_fn to a response.

    The result is a content, or a pair of a content and its content type.
    """
    content, media_type = (result[0], result[1]) if isinstance(result, tuple) else (result, accept)
    body = _to_bytes(content)
    processor = context.request()
    status = processor.get_response_status_code()
    if status not in STATUSES:
        raise ValueError(f"{status!r} is not a status of a response: set one from 200 to 599")
    headers = [("content-type", check_header(media_type))] if media_type else []
    body = b"" if status in STATUSES_WITHOUT_BODY else body
    return HttpResponse(int(status), [*headers, *list_response_headers(processor)], body)


def _to_part(value: Any) -> bytes:
    """Convert one part of a stream.

    Raises:
        TypeError: it is neither text nor bytes.
    """
    if not isinstance(value, str | bytes | bytearray | memoryview):
        type_name = type(value).__name__
        raise TypeError(f"a stream yields a value of type {type_name}: yield text or bytes, such as json.dumps(…)")
    return _to_bytes(value)


def _to_bytes(content: Any) -> bytes:
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    return content.encode() if isinstance(content, str) else json.dumps(content, indent=2).encode()
