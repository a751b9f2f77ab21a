"""The loaded models of a container of a multi-model endpoint, by name."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .responses import HttpError, HttpResponse, quote
from .service import Invocation

logger = logging.getLogger("microjobs")

UNLOAD_TIMEOUT = 60.0
"""Seconds in which the invocations of a model may end before it is unloaded. SageMaker has the same limit for an
invocation."""


class HostedModel(Protocol):
    """A model that is loaded until `close`. Several threads may call `invoke` at the same time."""

    def invoke(self, invocation: Invocation) -> HttpResponse: ...

    def close(self) -> None:
        """Free the memory of the model."""


OpenModel = Callable[[Path], HostedModel]
"""Function that loads the model in a folder. It raises HttpError if the folder has no model, or memory is scarce."""


@dataclass
class _LoadedModel:
    url: str
    model: HostedModel
    invocation_count: int = 0
    """Number of invocations that use the model."""


class ModelTable:
    """Loads, finds and unloads models. Any thread may call the methods.

    Loading or unloading a model waits for an earlier change of the same model, but not for changes of other models.
    """

    def __init__(self, open_model: OpenModel) -> None:
        self._open_model = open_model
        self._loaded_models: dict[str, _LoadedModel] = {}
        self._changing_names: set[str] = set()
        """Names of the models that are being loaded or unloaded."""
        self._condition = threading.Condition()

    def load(self, name: str, url: str, folder: Path) -> None:
        """Load a model.

        Args:
            url: the URL of the model in the request, which `find_url` and `list_urls` return.

        Raises:
            HttpError: 409, the name is in use; or the model cannot be loaded.
        """
        with self._change(name):
            if name in self._loaded_models:
                raise HttpError(409, f"model {quote(name)} is already loaded: unload it first, or use another name")
            start_time = time.perf_counter()
            model = self._open_model(folder)
            with self._condition:
                self._loaded_models[name] = _LoadedModel(url, model)
            logger.info("loaded model %s from %s in %.2f s", name, url, time.perf_counter() - start_time)

    def unload(self, name: str) -> None:
        """Unload a model when its invocations have ended, or after UNLOAD_TIMEOUT, and free its memory.

        Raises:
            HttpError: 404, the model is not loaded.
        """
        with self._change(name):
            with self._condition:
                loaded_model = self._find(name)
                del self._loaded_models[name]
                self._condition.wait_for(lambda: not loaded_model.invocation_count, UNLOAD_TIMEOUT)
            loaded_model.model.close()
            logger.info("unloaded model %s", name)

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[HostedModel]:
        """Keep a model loaded until the `with` block ends.

        Raises:
            HttpError: 404, the model is not loaded.
        """
        with self._condition:
            loaded_model = self._find(name)
            loaded_model.invocation_count += 1
        try:
            yield loaded_model.model
        finally:
            with self._condition:
                loaded_model.invocation_count -= 1
                self._condition.notify_all()

    def find_url(self, name: str) -> str:
        """Return the URL of a model.

        Raises:
            HttpError: 404, the model is not loaded.
        """
        with self._condition:
            return self._find(name).url

    def list_urls(self) -> list[tuple[str, str]]:
        """Return the names and URLs of all loaded models, sorted by name."""
        with self._condition:
            return sorted((name, loaded_model.url) for name, loaded_model in self._loaded_models.items())

    def _find(self, name: str) -> _LoadedModel:
        if name not in self._loaded_models:
            raise HttpError(404, f"model {quote(name)} is not loaded: load it with POST /models")
        return self._loaded_models[name]

    @contextlib.contextmanager
    def _change(self, name: str) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: name not in self._changing_names)
            self._changing_names.add(name)
        try:
            yield
        finally:
            with self._condition:
                self._changing_names.discard(name)
                self._condition.notify_all()
