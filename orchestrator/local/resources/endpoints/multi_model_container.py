"""The `/models` API of a multi-model container, and the folders of its models.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator.local.resources.endpoints.container_replica import ContainerReplica
from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest
from microjobs_orchestrator.local.resources.models.client import ResponseHead, TooLargeError
from microjobs_orchestrator.local.resources.models.multi_model import MODELS_PATH, TARGET_MODEL_HEADER, TargetModel
from microjobs_orchestrator.local.resources.models.serving import UnhealthyError

MODELS_FOLDER = f"{DEFAULT_ROOT}/models"
"""The folder of the models' files in the container."""
CONTROL_TIMEOUT = 60.0
"""Seconds for a request that lists, finds or unloads a model."""
MAX_ANSWER_BYTES = 1 << 20
MAX_PAGES = 1000
"""Maximum number of pages in a list of models. It ends the list of a container that always returns a nextPageToken."""


class LoadError(Exception):
    """The container did not load a model."""

    def __init__(self, response: ResponseHead, body: bytes) -> None:
        super().__init__(f"status {response.status}: {body[:1000].decode(errors='replace')}")
        self.response = response
        self.body = body


class MultiModelContainer:
    """A container of a replica that loads and unloads models.

    Args:
        index: the index of the container in its model.
    """

    def __init__(self, replica: ContainerReplica, index: int) -> None:
        self._replica = replica
        self._index = index

    def clear(self) -> None:
        """Unload models that an earlier server loaded, and remove their files. Raise the errors of `list_models`."""
        for name in self.list_models():
            self._request("DELETE", f"{MODELS_PATH}/{quote(name, safe='')}")
        self._replica.remove_folder(MODELS_FOLDER, self._index)

    def list_models(self) -> list[str]:
        """Return the names of the loaded models that are below the folder of models.

        Raise UnhealthyError if the container has no valid `/models` API, and NoResponseError if it does not answer.
        """
        names, path = list[str](), MODELS_PATH
        for _ in range(MAX_PAGES):
            models, token = self._read_page(path)
            names += [name for name, url in models if url.startswith(f"{MODELS_FOLDER}/")]
            if not token:
                return names
            path = f"{MODELS_PATH}?next_page_token={quote(token, safe='')}"
        raise UnhealthyError(f"GET {MODELS_PATH} returned a nextPageToken {MAX_PAGES} times.")

    def _read_page(self, path: str) -> tuple[list[tuple[str, str]], str]:
        """Return the names and the URLs of some models, and the token of the next page, which may be empty."""
        try:
            response, body = self._request("GET", path)
        except TooLargeError as error:
            raise UnhealthyError(f"GET {MODELS_PATH}: {error}.") from error
        if response.status != HTTPStatus.OK:
            raise UnhealthyError(
                f"GET {MODELS_PATH} answered {response.status} instead of 200: a container with Mode MultiModel must "
                "have the API of https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html."
            )
        try:
            page = json.loads(body)
            models = [(_read_text(model, "modelName"), _read_text(model, "modelUrl")) for model in page["models"]]
            return models, _read_text(page, "nextPageToken") if page.get("nextPageToken") else ""
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            text = body[:200].decode(errors="replace")
            example = '{"models": [{"modelName": …, "modelUrl": …}]}'
            raise UnhealthyError(f"GET {MODELS_PATH} must return {example}, not: {text}") from None

    def add_files(self, model: TargetModel, folder: Path) -> None:
        """Copy a model's folder to the container. Raise OSError if the disk is full, or CannotRunError for another
        reason."""
        self._replica.add_folder(folder, _get_folder(model), self._index)

    def remove_files(self, model: TargetModel) -> None:
        self._replica.remove_folder(_get_folder(model).rpartition("/")[0], self._index)

    def load(self, model: TargetModel, seconds: float) -> None:
        """Load a model whose files are in the container.

        Raise LoadError if the container refuses the model, and NoResponseError if the container does not answer.
        """
        body = json.dumps({"model_name": model.name, "url": _get_folder(model)}).encode()
        response, content = self._request("POST", MODELS_PATH, model, body, seconds)
        if not (response.status < HTTPStatus.MULTIPLE_CHOICES or response.status == HTTPStatus.CONFLICT):
            raise LoadError(response, content)

    def unload(self, model: TargetModel) -> ResponseHead:
        """Unload a model. Raise NoResponseError."""
        return self._request("DELETE", f"{MODELS_PATH}/{model.name}", model)[0]

    def is_loaded(self, model: TargetModel) -> bool:
        """Return whether the container has loaded a model. Raise NoResponseError."""
        return self._request("GET", f"{MODELS_PATH}/{model.name}", model)[0].status != HTTPStatus.NOT_FOUND

    def _request(
        self,
        method: str,
        path: str,
        model: TargetModel | None = None,
        body: bytes | None = None,
        seconds: float = CONTROL_TIMEOUT,
    ) -> tuple[ResponseHead, bytes]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if model is not None:
            headers[TARGET_MODEL_HEADER] = model.target
        content = BytesIO()
        request = InferenceRequest(body, headers, seconds, MAX_ANSWER_BYTES)
        return self._replica.send(path, request, content, self._index, method=method), content.getvalue()


def _read_text(members: Mapping[str, Any], name: str) -> str:
    """Return a member. Raise KeyError or TypeError if it is missing or not a text."""
    value = members[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _get_folder(model: TargetModel) -> str:
    return f"{MODELS_FOLDER}/{model.name}/model"
