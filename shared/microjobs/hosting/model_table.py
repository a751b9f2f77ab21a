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
"""Seconds in which invocations of a model may end before it is unloaded. SageMaker has the same limit for them."""


class HostedModel(Protocol):
    """A model that is loaded until `close`. Several threads may call `invoke` at the same time."""

    def invoke(self, invocation: Invocation) -> HttpResponse: ...

    def close(self) -> None:
        """Free the memory of the model."""


OpenModel = Callable[[Path], HostedModel]
"""Function that loads the model in a folder. It raises HttpError if the folder has no model, or memory is scarce."""


@dataclass
class _Entry:
    url: str
    model: HostedModel
    users: int = 0
    """Number of invocations that use the model."""


class ModelTable:
    """Loads, finds and unloads models. Any thread may call the methods.

    A change of one model waits for an earlier change of the same model, and for no other model.
    """

    def __init__(self, open_model: OpenModel) -> None:
        self._open_model = open_model
        self._entries: dict[str, _Entry] = {}
        self._changing: set[str] = set()
        """Names of the models that are being loaded or unloaded."""
        self._changed = threading.Condition()

    def load(self, name: str, url: str, folder: Path) -> None:
        """Load a model.

        Args:
            url: the model's place, as `urls` returns it.

        Raises:
            HttpError: 409, the name is in use; or the model cannot be loaded.
        """
        with self._change(name):
            if name in self._entries:
                raise HttpError(409, f"model {quote(name)} is already loaded: unload it first, or use another name")
            started = time.perf_counter()
            model = self._open_model(folder)
            with self._changed:
                self._entries[name] = _Entry(url, model)
            logger.info("loaded model %s from %s in %.2f s", name, url, time.perf_counter() - started)

    def unload(self, name: str) -> None:
        """Unload a model as soon as its invocations have ended, and free its memory.

        Raises:
            HttpError: 404, the model is not loaded.
        """
        with self._change(name):
            with self._changed:
                entry = self._find(name)
                del self._entries[name]
                self._changed.wait_for(lambda: not entry.users, UNLOAD_TIMEOUT)
            entry.model.close()
            logger.info("unloaded model %s", name)

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[HostedModel]:
        """Keep a model loaded until the block ends.

        Raises:
            HttpError: 404, the model is not loaded.
        """
        with self._changed:
            entry = self._find(name)
            entry.users += 1
        try:
            yield entry.model
        finally:
            with self._changed:
                entry.users -= 1
                self._changed.notify_all()

    def find_url(self, name: str) -> str:
        """Return the place of a model.

        Raises:
            HttpError: 404, the model is not loaded.
        """
        with self._changed:
            return self._find(name).url

    def urls(self) -> list[tuple[str, str]]:
        """Return the names and places of all loaded models, by name."""
        with self._changed:
            return sorted((name, entry.url) for name, entry in self._entries.items())

    def _find(self, name: str) -> _Entry:
        if name not in self._entries:
            raise HttpError(404, f"model {quote(name)} is not loaded: load it with POST /models")
        return self._entries[name]

    @contextlib.contextmanager
    def _change(self, name: str) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: name not in self._changing)
            self._changing.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._changing.discard(name)
                self._changed.notify_all()
