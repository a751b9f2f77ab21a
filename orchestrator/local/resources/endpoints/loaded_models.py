"""The models that a multi-model container has loaded: each is loaded once, and unloaded when others need the room."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.endpoints.model_loader import ModelLoader, make_space_error
from microjobs_orchestrator.local.resources.endpoints.model_metrics import ModelMetrics
from microjobs_orchestrator.local.resources.models.client import NoAnswerError
from microjobs_orchestrator.local.resources.models.multi_model import TargetModel

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
        count_starts: returns how often the container has been started. A new container has no models.
        max_bytes: the largest sum of the sizes of all models' files in the container.
        is_caching: whether models stay loaded after a request.
    """

    def __init__(
        self,
        loader: ModelLoader,
        count_starts: Callable[[], int],
        metrics: ModelMetrics,
        max_bytes: int,
        *,
        is_caching: bool,
    ) -> None:
        self._loader = loader
        self._count_starts = count_starts
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._is_caching = is_caching
        self._changed = threading.Condition()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        """The models by their names in the container; the most recently used model is the last."""
        self._is_closed = False
        self._loads = 0
        """The number of models that are being loaded."""
        self._start = 0
        """The start of the container that has the loaded models."""
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT_LOADS, "load model")

    def close(self) -> None:
        """Start no further loads, and let no load wait for room. Loads end when their container does not answer."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

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
        began = time.monotonic()
        with self._changed:
            entry = self._find_or_load(model)
            was_loaded = entry.status is Status.LOADED
            while not self._try_use(entry, deadline):
                entry = self._find_or_load(model)
            self._entries.move_to_end(model.name)
            self._metrics.record_request(len(self._entries) - self._loads, was_loaded=was_loaded)
        if not was_loaded:
            self._metrics.record_wait(time.monotonic() - began)
        return entry

    def _try_use(self, entry: Entry, deadline: float) -> bool:
        """Wait until a model is loaded, and count its user. Return False if it is gone meanwhile.

        Raise the error of its load, ModelNotReadyException, or NoAnswerError after `close`.
        """
        entry.users += 1
        try:
            while entry.status in (Status.LOADING, Status.UNLOADING):
                if self._is_closed:
                    raise _make_replaced_error()
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise _make_not_ready_error(entry.model)
            if entry.failure is not None:
                raise entry.failure
        except BaseException:
            entry.users -= 1
            raise
        return entry.status is Status.LOADED

    def _release(self, entry: Entry) -> None:
        with self._changed:
            entry.users -= 1
            if entry.users == 0:
                entry.is_unwanted |= not self._is_caching
                self._unload_unwanted()
                self._changed.notify_all()

    def _find_or_load(self, model: TargetModel) -> Entry:
        if (start := self._count_starts()) != self._start:
            self._start = start
            for entry in list(self._entries.values()):
                if entry.status is Status.LOADED:
                    self._remove(entry)
        return self._entries.get(model.name) or self._start_load(model)

    def _start_load(self, model: TargetModel) -> Entry:
        for other in self._entries.values():
            other.is_unwanted |= other.model.target == model.target
        entry = Entry(model, self._start)
        try:
            self._pool.submit(self._load, entry)
        except RuntimeError:
            raise _make_replaced_error() from None
        self._entries[model.name] = entry
        self._loads += 1
        return entry

    def _remove(self, entry: Entry) -> None:
        entry.status = Status.GONE
        if self._entries.get(entry.model.name) is entry:
            del self._entries[entry.model.name]
        self._changed.notify_all()

    # --- in the threads of the pool ---

    def _load(self, entry: Entry) -> None:
        deadline, entry.is_waiting = time.monotonic() + LOAD_TIMEOUT, False
        try:
            self._loader.load(entry.model, _SharedRoom(self, entry, deadline), deadline)
            if self._count_starts() != entry.start:
                raise NoAnswerError("the container was started again while it loaded the model", was_sent=False)
        except Exception as error:  # the requests that wait for the model raise it
            entry.failure = error
        with self._changed:
            self._loads -= 1
            if entry.failure is not None:
                self._remove(entry)
                return
            entry.status = Status.LOADED
            self._changed.notify_all()
            self._unload_unwanted()

    def reserve(self, entry: Entry, size: int, deadline: float) -> None:
        """Reserve space as `Room.reserve` does."""
        entry.size = size
        while self._sum_sizes() > self._max_bytes:
            if not self.make_room(entry, deadline):
                problem = f"its files have {size} bytes, and the variant's volume has {self._max_bytes}"
                raise make_space_error(entry.model, f"{problem}: increase VolumeSizeInGB")

    def _sum_sizes(self) -> int:
        with self._changed:
            return sum(entry.size for entry in self._entries.values())

    def make_room(self, entry: Entry, deadline: float) -> bool:
        """Unload the least recently used model, or wait for a change while all other models are in use.

        Return False if only models remain that wait for room, too, if it takes too long, or after `close`.
        """
        with self._changed:
            if self._is_closed:
                return False
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
            if entry.start == self._count_starts():
                self._loader.unload(entry.model)
        finally:
            with self._changed:
                self._remove(entry)


class _SharedRoom:
    """The room of one model while it is loaded; see `model_loader.Room`."""

    def __init__(self, models: LoadedModels, entry: Entry, deadline: float) -> None:
        self._models = models
        self._entry = entry
        self._deadline = deadline

    def reserve(self, size: int) -> None:
        self._models.reserve(self._entry, size, self._deadline)

    def extend(self) -> bool:
        return self._models.make_room(self._entry, self._deadline)


def _make_replaced_error() -> NoAnswerError:
    """Return an error after which the request is sent to the container of a new deployment."""
    return NoAnswerError("the container is being replaced", was_sent=False)


def _make_not_ready_error(model: TargetModel) -> ServiceError:
    message = f"Model {model.target} is still being loaded. Try again: the load continues for up to {LOAD_TIMEOUT:g} s."
    return ServiceError("ModelNotReadyException", message, HTTPStatus.TOO_MANY_REQUESTS)
