"""Loads models into a multi-model container: copies their files to the container, which then loads them."""

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from microjobs_orchestrator.local.errors import is_disk_full
from microjobs_orchestrator.local.resources.endpoints import model_metrics
from microjobs_orchestrator.local.resources.endpoints.model_metrics import ModelMetrics
from microjobs_orchestrator.local.resources.endpoints.multi_model_container import LoadError, MultiModelContainer
from microjobs_orchestrator.local.resources.models.client import ResponseHead
from microjobs_orchestrator.local.resources.models.multi_model import TargetModel
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)


class ModelSpace(Protocol):
    """The disk and the memory that a model shares with the other models of its container."""

    def reserve(self, size: int) -> None:
        """Unload other models until the files of the model have enough space. Raise LoadError if that is impossible."""

    def unload_another_model(self) -> bool:
        """Unload another model. Return False if that is impossible."""


class ModelLoader:
    """Loads and unloads models, in any thread.

    Args:
        folder: contains the files of a model until they have been copied to the container.
        note: writes a sentence to the log of the endpoint.
    """

    def __init__(
        self, container: MultiModelContainer, folder: Path, metrics: ModelMetrics, note: Callable[[str], None]
    ) -> None:
        self._note = note
        self._container = container
        self._folder = folder
        self._metrics = metrics

    def load(self, model: TargetModel, space: ModelSpace, deadline: float) -> None:
        """Load a model. If that fails, remove its files.

        Raise LoadError, NoResponseError, or ServiceError for an archive that cannot be extracted.
        """
        try:
            self._copy_files(model, space)
            self._load_files(model, space, deadline)
        except Exception as error:
            self._remove_files(model)
            self._note(f"{model.target} was not loaded: {error}")
            raise

    def unload(self, model: TargetModel) -> None:
        """Unload a model, and remove its files. Log errors."""
        try:
            with self._metrics.measure(model_metrics.UNLOADING):
                self._container.unload(model)
        except Exception as error:
            logger.warning("%s could not be unloaded: %s", model.uri, error)
        self._remove_files(model)

    def _remove_files(self, model: TargetModel) -> None:
        try:
            self._container.remove_files(model)
        except Exception as error:
            logger.info("the files of %s could not be removed: %s", model.uri, error)

    def _copy_files(self, model: TargetModel, space: ModelSpace) -> None:
        """Copy the files of a model to the container; unload other models if there is not enough space."""
        folder = self._folder / model.name
        try:
            while not self._try_copy(model, space, folder):
                if not space.unload_another_model():
                    raise make_space_error(model, "the disk is full")
        except CannotRunError as error:
            raise LoadError(ResponseHead(HTTPStatus.INTERNAL_SERVER_ERROR, {}), str(error).encode()) from error
        finally:
            discard(folder)

    def _try_copy(self, model: TargetModel, space: ModelSpace, folder: Path) -> bool:
        """Copy the files of a model to the container. Return False if the disk is full."""
        discard(folder)
        try:
            with self._metrics.measure(model_metrics.DOWNLOADING):
                model.prepare(folder)
                space.reserve(sum(path.lstat().st_size for path in folder.rglob("*")))
                self._container.add_files(model, folder)
        except OSError as error:
            if not is_disk_full(error):
                raise
            return False
        return True

    def _load_files(self, model: TargetModel, space: ModelSpace, deadline: float) -> None:
        """Load a model from files in the container; unload other models while the memory is not sufficient."""
        while True:
            try:
                with self._metrics.measure(model_metrics.LOADING):
                    return self._container.load(model, max(1.0, deadline - time.monotonic()))
            except LoadError as error:
                if error.response.status != HTTPStatus.INSUFFICIENT_STORAGE or not space.unload_another_model():
                    raise


def make_space_error(model: TargetModel, problem: str) -> LoadError:
    message = f"Model {model.target} cannot be stored: {problem}"
    return LoadError(ResponseHead(HTTPStatus.INSUFFICIENT_STORAGE, {}), message.encode())
