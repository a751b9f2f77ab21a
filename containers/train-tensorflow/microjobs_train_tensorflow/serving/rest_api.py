"""TensorFlow Serving's REST API: https://www.tensorflow.org/tfx/serving/api_rest."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson

from microjobs.bundle import SERVING_DEFAULT
from microjobs.hosting.media_types import JSON
from microjobs.hosting.responses import HttpError, HttpResponse, quote

from . import tensors
from .tensors import Array, Signature

PREFIX = "/v1/models/"
MAX_VERSION_DIGITS = 18
"""Maximum number of digits of a version. Such a number fits into 64 bits, the size of TensorFlow Serving's version
numbers."""
PATH_PATTERN = re.compile(
    rf"{PREFIX}(?P<name>[^/:]+)(?:/versions/(?P<version>\d{{1,{MAX_VERSION_DIGITS}}}))?(?P<action>/metadata|:\w+)?"
)
REQUEST_MEMBERS = {"signature_name", "instances", "inputs"}
"""Members that the body of a request for `:predict` may have."""


class SavedModel(Protocol):
    """One version of a model."""

    signatures: Mapping[str, Signature]

    def signature_def(self) -> Any:
        """Return the signatures as a JSON value, as TensorFlow Serving's metadata contain them."""


@dataclass(frozen=True)
class Prediction:
    """The outputs by name; `row_count` is None in the column format."""

    outputs: Mapping[str, Array]
    row_count: int | None

    def to_json(self) -> bytes:
        """Return the response of TensorFlow Serving."""
        if self.row_count is None:
            return dump({"outputs": tensors.write_columns(self.outputs)})
        return dump({"predictions": tensors.write_rows(self.outputs, self.row_count)})


class RestApi:
    """Answers requests for models. The path of a request names the model, the version and the action.

    Args:
        models: the versions of each model, by its name.
    """

    def __init__(self, models: Mapping[str, Mapping[int, SavedModel]]) -> None:
        self._models = models

    def answer(self, method: str, path: str, body: bytes) -> HttpResponse:
        """Answer one request. Errors become responses too."""
        try:
            return self._answer(method, path, body)
        except HttpError as error:
            return error.response()

    def find(self, name: str, version: str | None) -> tuple[int, SavedModel]:
        """Return the number and the SavedModel of a version of a model. None stands for the latest version.

        Raises:
            HttpError: 404, there is no such model or version.
        """
        versions = self._models.get(name, {})
        number = int(version) if version is not None else max(versions, default=0)
        if number not in versions:
            requested_model = f"Latest({name})" if version is None else f"Specific({name}, {number})"
            models = ", ".join(f"{name} ({', '.join(map(str, items))})" for name, items in self._models.items())
            raise HttpError(
                404, f"Servable not found for request: {requested_model}. The models (versions) are {models}"
            )
        return number, versions[number]

    def _answer(self, method: str, path: str, body: bytes) -> HttpResponse:
        match = PATH_PATTERN.fullmatch(path)
        expected_method = "POST" if match and (match["action"] or "").startswith(":") else "GET"
        if match is None or method != expected_method:
            raise HttpError(400, f"Malformed request: {method} {path}")
        name, version, action = match.groups()
        if action and action not in ("/metadata", ":predict"):
            raise HttpError(400, f"{action[1:]} is not supported: use :predict, with signature_name if necessary")
        if action == ":predict":
            _, model = self.find(name, version)
            prediction = predict(model, parse_json(body))
            return HttpResponse(
                200, [("content-type", JSON)], prediction.to_json(), row_count=prediction.row_count or 0
            )
        content = self._describe_metadata(name, version) if action else self._describe_status(name, version)
        return HttpResponse(200, [("content-type", JSON)], dump(content))

    def _describe_status(self, name: str, version: str | None) -> Any:
        number, _ = self.find(name, version)
        versions = [number] if version is not None else sorted(self._models[name], reverse=True)
        ok = {"error_code": "OK", "error_message": ""}
        return {
            "model_version_status": [{"version": str(item), "state": "AVAILABLE", "status": ok} for item in versions]
        }

    def _describe_metadata(self, name: str, version: str | None) -> Any:
        number, model = self.find(name, version)
        return {
            "model_spec": {"name": name, "signature_name": "", "version": str(number)},
            "metadata": {"signature_def": {"signature_def": model.signature_def()}},
        }


def predict(model: SavedModel, content: Any, default_signature: str = SERVING_DEFAULT) -> Prediction:
    """Answer the body of a request for `:predict`.

    Raises:
        HttpError: the body is invalid, or the model rejects its values or failed.
    """
    if (
        not isinstance(content, dict)
        or content.keys() - REQUEST_MEMBERS
        or ("instances" in content) == ("inputs" in content)
    ):
        contents = ", ".join(map(quote, content)) if isinstance(content, dict) else quote(content)
        message = (
            f'the body has {contents}: send an object with "instances" or "inputs", and "signature_name" if needed'
        )
        raise HttpError(400, message)
    signature = find_signature(model, content.get("signature_name") or default_signature)
    if "instances" in content:
        inputs = tensors.read_rows(content["instances"], signature.inputs)
        return Prediction(tensors.widen_outputs(signature.run(inputs)), row_count=len(content["instances"]))
    inputs = tensors.read_columns(content["inputs"], signature.inputs)
    return Prediction(tensors.widen_outputs(signature.run(inputs)), row_count=None)


def find_signature(model: SavedModel, name: Any) -> Signature:
    """Return a signature of a model.

    Raises:
        HttpError: 400, the model has no such signature.
    """
    if not isinstance(name, str) or name not in model.signatures:
        raise HttpError(400, f"signature_name {quote(name)} is unknown: the model has {', '.join(model.signatures)}")
    return model.signatures[name]


def parse_json(body: bytes) -> Any:
    """Parse JSON. NaN and Infinity are valid numbers, as in TensorFlow Serving.

    Raises:
        HttpError: 400, the body is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = str(error)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise HttpError(400, f"JSON Parse error: {reason}") from None


def dump(value: Any) -> bytes:
    """Return JSON. Numbers that are not finite become NaN or Infinity, as in TensorFlow Serving."""
    if _is_finite(value):
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(value, default=lambda array: array.tolist()).encode()


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, np.ndarray | np.generic) or value.dtype.kind != "f" or bool(np.isfinite(value).all())
