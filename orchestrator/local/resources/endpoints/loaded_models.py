"""The models that a multi-model container has loaded: each is loaded once, and unloaded when others need the room."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from pathlib import Path

from microjobs_orchestrator.local.errors import ServiceError, is_disk_full
from microjobs_orchestrator.local.resources.endpoints.model_container import LoadError, ModelContainer
from microjobs_orchestrator.local.resources.models.client import Answer, NoAnswerError
from microjobs_orchestrator.local.resources.models.multi_model import TargetModel
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

LOAD_TIMEOUT = 360.0
"""Seconds until a model is loaded: https://docs.aws.amazon.com/sagemaker/latest/dg/invoke-multi-model-endpoint.html"""
MAX_CONCURRENT_LOADS = 4


class Status(Enum):
    LOADING = auto()
    LOADED = auto()
    UNLOADING = auto()
    GONE = auto()


@dataclass(eq=False)
class Entry:
    """A model of the container. The lock of `LoadedModels` protects its members."""

    model: TargetModel
    start: int
    """The start of the container, counted from 1, for which the model is loaded."""
    status: Status = Status.LOADING
    is_waiting: bool = True
    """Whether its load waits for a thread, or until another model is unloaded."""
    is_unwanted: bool = False
    """Whether it is unloaded when no request uses it, because the bucket has a newer version or without a cache."""
    users: int = 0
    """The requests that use the model or wait for it."""
    size: int = 0
    """The bytes of its files in the container."""
    failure: Exception | None = None


class LoadedModels:
    """Loads and unloads the models of a container, for requests from any thread.

    Args:
        folder: the parent of folders for models while they are loaded.
        max_bytes: the largest sum of the sizes of all models' files in the container.
        is_caching: whether models stay loaded after a request.
    """

    def __init__(self, container: ModelContainer, folder: Path, max_bytes: int, *, is_caching: bool) -> None:
        self._container = container
        self._folder = folder
        self._max_bytes = max_bytes
        self._is_caching = is_caching
        self._changed = threading.Condition()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        """The models by their names in the container; the most recently used model is the last."""
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT_LOADS, "load model")

    def close(self) -> None:
        """Start no further loads. A load ends when its container does not answer any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def use(self, model: TargetModel, seconds: float) -> Iterator[None]:
        """Load a model unless it is loaded, and keep it loaded meanwhile.

        Raises:
            ServiceError: ModelNotReadyException if it is not loaded within `seconds`, and continues to load; or
                ValidationError for its archive.
            LoadError: the container refused to load it, or its files cannot be stored.
            NoAnswerError: the container did not answer.
        """
        entry = self._acquire(model, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._release(entry)

    def forget(self, model: TargetModel) -> None:
        """Note that the container has lost a model: the next request loads it again."""
        with self._changed:
            entry = self._entries.get(model.name)
            if entry is not None and entry.status is Status.LOADED:
                self._remove(entry)

    def _acquire(self, model: TargetModel, deadline: float) -> Entry:
        with self._changed:
            while True:
                entry = self._find_or_load(model)
                entry.users += 1
                try:
                    self._wait(entry, deadline)
                except BaseException:
                    entry.users -= 1
                    raise
                if entry.status is Status.LOADED:
                    self._entries.move_to_end(model.name)
                    return entry
                entry.users -= 1

    def _wait(self, entry: Entry, deadline: float) -> None:
        """Wait until a model is loaded or gone. Raise the error of its load, or ModelNotReadyException."""
        while entry.status in (Status.LOADING, Status.UNLOADING):
            if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                raise _make_not_ready_error(entry.model)
        if entry.failure is not None:
            raise entry.failure

    def _release(self, entry: Entry) -> None:
        with self._changed:
            entry.users -= 1
            if entry.users == 0:
                entry.is_unwanted |= not self._is_caching
                self._unload_unwanted()
                self._changed.notify_all()

    def _find_or_load(self, model: TargetModel) -> Entry:
        starts = self._container.starts
        for entry in list(self._entries.values()):
            if entry.start != starts and entry.status is Status.LOADED:  # the container was started again
                self._remove(entry)
            entry.is_unwanted |= entry.model.target == model.target and entry.model.name != model.name
        if model.name not in self._entries:
            self._entries[model.name] = entry = Entry(model, starts)
            try:
                self._pool.submit(self._load, entry)
            except RuntimeError:
                self._remove(entry)
                raise NoAnswerError("the container is being replaced", was_sent=False) from None
        return self._entries[model.name]

    def _remove(self, entry: Entry) -> None:
        entry.status = Status.GONE
        if self._entries.get(entry.model.name) is entry:
            del self._entries[entry.model.name]
        self._changed.notify_all()

    # --- in the threads of the pool ---

    def _load(self, entry: Entry) -> None:
        deadline, entry.is_waiting = time.monotonic() + LOAD_TIMEOUT, False
        try:
            self._copy_files(entry, deadline)
            self._load_files(entry, deadline)
        except Exception as error:  # the requests that wait for the model raise it
            self._remove_files(entry)
            entry.failure = error
        with self._changed:
            if entry.failure is not None:
                self._remove(entry)
                return
            entry.status = Status.LOADED
            self._changed.notify_all()
            self._unload_unwanted()

    def _copy_files(self, entry: Entry, deadline: float) -> None:
        """Copy the files of a model to the container; unload other models if there is not enough space."""
        folder = self._folder / entry.model.name
        try:
            while not self._try_copy(entry, folder, deadline):
                if not self._make_room(entry, deadline):
                    raise _make_space_error(entry.model, "the disk is full")
        except CannotRunError as error:
            raise LoadError(Answer(HTTPStatus.INTERNAL_SERVER_ERROR, {}), str(error).encode()) from error
        finally:
            discard(folder)

    def _try_copy(self, entry: Entry, folder: Path, deadline: float) -> bool:
        """Return False if the disk is full."""
        discard(folder)
        try:
            entry.model.prepare(folder)
            self._reserve(entry, _measure(folder), deadline)
            self._container.add_files(entry.model, folder)
        except OSError as error:
            if not is_disk_full(error):
                raise
            return False
        return True

    def _reserve(self, entry: Entry, size: int, deadline: float) -> None:
        """Unload other models until there is room for the files of a model."""
        entry.size = size
        while self._sum_sizes() > self._max_bytes:
            if not self._make_room(entry, deadline):
                problem = f"its files have {size} bytes, and the variant's volume has {self._max_bytes}"
                raise _make_space_error(entry.model, f"{problem}: increase VolumeSizeInGB")

    def _sum_sizes(self) -> int:
        with self._changed:
            return sum(entry.size for entry in self._entries.values())

    def _load_files(self, entry: Entry, deadline: float) -> None:
        while True:
            try:
                self._container.load(entry.model, max(1.0, deadline - time.monotonic()))
                break
            except LoadError as error:
                is_full = error.answer.status == HTTPStatus.INSUFFICIENT_STORAGE
                if not (is_full and self._make_room(entry, deadline)):
                    raise
        if self._container.starts != entry.start:
            raise NoAnswerError("the container was started again while it loaded the model", was_sent=False)

    def _make_room(self, entry: Entry, deadline: float) -> bool:
        """Unload the least recently used model, or wait for a change while all other models are in use.

        Return False if only models remain that wait for room, too, or if it takes too long.
        """
        with self._changed:
            victim = self._choose_victim()
            if victim is None:
                entry.is_waiting = True
                try:
                    others = [other for other in self._entries.values() if not other.is_waiting]
                    return bool(others) and self._changed.wait(max(0.0, deadline - time.monotonic()))
                finally:
                    entry.is_waiting = False
            victim.status = Status.UNLOADING
        self._unload(victim)
        return True

    def _choose_victim(self) -> Entry | None:
        idle = [entry for entry in self._entries.values() if entry.status is Status.LOADED and entry.users == 0]
        return next((entry for entry in idle if entry.is_unwanted), next(iter(idle), None))

    def _unload_unwanted(self) -> None:
        """Unload the unwanted models that no request uses, in other threads."""
        for entry in self._entries.values():
            if entry.is_unwanted and entry.status is Status.LOADED and entry.users == 0:
                entry.status = Status.UNLOADING
                threading.Thread(target=self._unload, args=(entry,), name="unload model", daemon=True).start()

    def _unload(self, entry: Entry) -> None:
        try:
            if entry.start == self._container.starts:
                self._container.unload(entry.model)
                self._container.remove_files(entry.model)
        except Exception as error:
            logger.warning("%s could not be unloaded: %s", entry.model.uri, error)
        finally:
            with self._changed:
                self._remove(entry)

    def _remove_files(self, entry: Entry) -> None:
        try:
            self._container.remove_files(entry.model)
        except Exception as error:
            logger.info("the files of %s could not be removed: %s", entry.model.uri, error)


def _measure(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def _make_space_error(model: TargetModel, problem: str) -> LoadError:
    message = f"Model {model.target} cannot be stored: {problem}"
    return LoadError(Answer(HTTPStatus.INSUFFICIENT_STORAGE, {}), message.encode())


def _make_not_ready_error(model: TargetModel) -> ServiceError:
    message = f"Model {model.target} is still being loaded. Try again: the load continues for up to {LOAD_TIMEOUT:g} s."
    return ServiceError("ModelNotReadyException", message, HTTPStatus.TOO_MANY_REQUESTS)
