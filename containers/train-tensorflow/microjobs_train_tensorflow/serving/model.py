"""The model of a worker: SavedModels behind `/invocations` and behind TensorFlow Serving's REST API."""

import functools
from collections.abc import Mapping
from pathlib import Path

from microjobs.bundle import SERVING_DEFAULT
from microjobs.hosting.content_negotiation import parse_attribute
from microjobs.hosting.media_types import JSON
from microjobs.hosting.responses import HttpError, HttpResponse, quote
from microjobs.hosting.service import Invocation
from microjobs.hosting.user_program import import_program

from . import formats, handlers
from .rest_api import MAX_VERSION_DIGITS, PREFIX, RestApi, SavedModel, find_signature, predict
from .rest_server import RestServer

NAME_ATTRIBUTE, VERSION_ATTRIBUTE, METHOD_ATTRIBUTE, SIGNATURE_ATTRIBUTE = (
    "tfs-model-name",
    "tfs-model-version",
    "tfs-method",
    "signature_name",
)
"""Attributes of X-Amzn-SageMaker-Custom-Attributes. AWS's image defines all except `signature_name`."""
PREDICT = "predict"


class TensorFlowModel:
    """Answers invocations with SavedModels, and with the user's handlers if there are some.

    Args:
        models: the versions of each model, by its name.
        default_name: the model of requests without `tfs-model-name`.
        program: the user's program with handlers, which has been checked by `handlers.follows_convention`.

    Raises:
        UserError: the program lacks a handler.
    """

    is_fast = False
    has_routes = True
    batch_model = None

    def __init__(
        self, models: Mapping[str, Mapping[int, SavedModel]], default_name: str, program: Path | None = None
    ) -> None:
        self._api = RestApi(models)
        self._default_name = default_name
        self._program_name = program.name if program else ""
        self._handler: handlers.Handler | None = None
        if program is not None:
            self._handler = handlers.read_handler(import_program(program), program.name, self._api)
            self._address = RestServer(self._api).address

    def invoke(self, invocation: Invocation) -> HttpResponse:
        """See `microjobs.hosting.service.Model`."""
        if invocation.path.startswith(PREFIX):
            return self._api.answer(invocation.method, invocation.path, invocation.body)
        read_attribute = functools.partial(parse_attribute, invocation.custom_attributes)
        method = read_attribute(METHOD_ATTRIBUTE) or PREDICT
        if method != PREDICT:
            remedy = f"use {PREDICT}, with {SIGNATURE_ATTRIBUTE} if necessary"
            raise HttpError(400, f"{METHOD_ATTRIBUTE} {method!r} is not supported: {remedy}")
        name, version = read_attribute(NAME_ATTRIBUTE) or self._default_name, read_attribute(VERSION_ATTRIBUTE)
        if version is not None and not (version.isdecimal() and len(version) <= MAX_VERSION_DIGITS):
            raise HttpError(
                400, f"{VERSION_ATTRIBUTE} {quote(version)} is not a number of at most {MAX_VERSION_DIGITS} digits"
            )
        if self._handler is not None:
            context = self._make_context(invocation, name, version)
            return handlers.run_handler(self._handler, self._program_name, invocation.body, context)
        return self._predict(invocation, name, version, read_attribute(SIGNATURE_ATTRIBUTE) or SERVING_DEFAULT)

    def _predict(self, invocation: Invocation, name: str, version: str | None, signature: str) -> HttpResponse:
        _, model = self._api.find(name, version)
        predict_request = formats.to_predict_request(
            invocation.body, invocation.content_type, lambda: find_signature(model, signature)
        )
        return formats.make_response(
            predict(model, predict_request, signature), invocation.content_type, invocation.accept
        )

    def _make_context(self, invocation: Invocation, name: str, version: str | None) -> handlers.Context:
        path = f"{PREFIX}{name}/versions/{version}" if version else f"{PREFIX}{name}"
        return handlers.Context(
            model_name=name,
            model_version=version,
            method=PREDICT,
            rest_uri=f"{self._address}{path}:{PREDICT}",
            custom_attributes=invocation.custom_attributes or None,
            request_content_type=invocation.content_type or JSON,
            accept_header=invocation.accept if invocation.accept not in ("", "*/*") else JSON,
            content_length=len(invocation.body),
        )
