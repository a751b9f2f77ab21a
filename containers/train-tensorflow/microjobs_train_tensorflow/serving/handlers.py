"""A user's handlers, by the convention of AWS's image for TensorFlow inference.

A program defines `handler(data, context)`, or `input_handler(data, context)` and `output_handler(response, context)`:
https://github.com/aws/deep-learning-containers, "TensorFlow Serving container", pre- and post-processing.
"""

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import requests

from microjobs.errors import UserError
from microjobs.hosting.handler_context import check_header
from microjobs.hosting.responses import HttpError, HttpResponse
from microjobs.hosting.user_program import PARAMETERS_BY_FUNCTION, TENSORFLOW_SERVING_FUNCTIONS, summarize

from .rest_api import RestApi

logger = logging.getLogger("microjobs")

INPUT_HANDLER, OUTPUT_HANDLER, HANDLER = "input_handler", "output_handler", "handler"

Handler = Callable[[io.BytesIO, "Context"], tuple[Any, str]]
"""A function that returns the body of the response, and its content type."""


@dataclass(frozen=True)
class Context:
    """The value of a handler's parameter `context`.

    Args:
        rest_uri: address of TensorFlow Serving's REST API for this request; only this machine can reach it.
        method: the last part of `rest_uri`; always "predict".
    """

    model_name: str
    model_version: str | None
    method: str
    rest_uri: str
    custom_attributes: str | None
    request_content_type: str
    accept_header: str
    content_length: int

    @property
    def grpc_port(self) -> str:
        raise NotImplementedError("this image has no gRPC interface: send requests to context.rest_uri")

    channel = grpc_port


def follows_convention(module: ModuleType) -> bool:
    """Return whether a program has functions of this convention, and none of the convention of sagemaker-inference."""
    return any(hasattr(module, name) for name in TENSORFLOW_SERVING_FUNCTIONS) and not any(
        hasattr(module, name) for name in PARAMETERS_BY_FUNCTION
    )


def read_handler(module: ModuleType, program: str, api: RestApi) -> Handler:
    """Return the program's handler, or a handler that calls the program's input_handler, the model and the program's
    output_handler.

    Raises:
        UserError: the program defines only one of input_handler and output_handler.
    """
    if handler := getattr(module, HANDLER, None):
        return handler  # type: ignore[no-any-return]
    prepare, finish = (getattr(module, name, None) for name in (INPUT_HANDLER, OUTPUT_HANDLER))
    if prepare is None or finish is None:
        defined_name, missing_name = (INPUT_HANDLER, OUTPUT_HANDLER) if prepare else (OUTPUT_HANDLER, INPUT_HANDLER)
        raise UserError(
            f"{program} defines {defined_name} without {missing_name}: define both, or handler(data, context)"
        )

    def call(data: io.BytesIO, context: Context) -> tuple[Any, str]:
        path = context.rest_uri[context.rest_uri.index("/v1/") :]
        response = api.answer("POST", path, _to_bytes(prepare(data, context)))
        result: tuple[Any, str] = finish(_to_requests_response(response, context.rest_uri), context)
        return result

    return call


def run_handler(handler: Handler, program: str, body: bytes, context: Context) -> HttpResponse:
    """Answer a request with the user's handler.

    Raises:
        HttpError: 500, the handler failed. An HttpError that the handler raises keeps its own status.
    """
    try:
        content, content_type = handler(io.BytesIO(body), context)
        return HttpResponse(200, [("content-type", check_header(content_type))], _to_bytes(content))
    except HttpError:
        raise
    except (Exception, SystemExit) as error:  # SystemExit would end the thread without a response
        logger.exception("%s failed on a request", program)
        raise HttpError(500, f"the model's own code failed: {summarize(error)}") from error


def _to_bytes(content: Any) -> bytes:
    """Convert text, bytes or a file.

    Raises:
        TypeError: the content is something else.
    """
    if hasattr(content, "read"):
        content = content.read()
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    if isinstance(content, str):
        return content.encode()
    raise TypeError(f"a handler returned {type(content).__name__}: return text or bytes, such as json.dumps(…)")


def _to_requests_response(response: HttpResponse, uri: str) -> requests.Response:
    """Convert a response to the class of the library `requests`, because output handlers use its attributes."""
    result = requests.Response()
    result.status_code = response.status
    result.headers.update(dict(response.headers))
    result.encoding, result.url = "utf-8", uri
    result.raw = io.BytesIO(response.body)
    return result
