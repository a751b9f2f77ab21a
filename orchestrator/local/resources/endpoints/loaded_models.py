"""The models that a multi-model container has loaded: each model is loaded once, and is unloaded when other models need
the space."""

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
from microjobs_orchestrator.local.resources.models.client import NoResponseError
from microjobs_orchestrator.local.resources.models.multi_model import TargetModel

LOAD_TIMEOUT = 360.0
"""Seconds in which a model must be loaded: https://docs.aws.amazon.com/sagemaker/latest/dg/invoke-multi-model-endpoint.html"""
MAX_CONCURRENT_LOADS = 4


class LoadStatus(Enum):
    """The status of a model in a container."""

    LOADING = auto()
    LOADED = auto()
    UNLOADING = auto()
    GONE = auto()


@dataclass(eq=False)
class LoadedModel:
    """A model of the container. The lock of `LoadedModels` protects its members."""

    model: TargetModel
    start_count: int
    """How often the container had been started when the load of the model began. After another start, the container has
    lost the model."""
    status: LoadStatus = LoadStatus.LOADING
    is_waiting: bool = True
    """Whether the load waits for a thread, or until another model is unloaded."""
    is_unwanted: bool = False
    """Whether the model is unloaded when no request uses it, because the bucket has a newer version or models are not
    cached."""
    user_count: int = 0
    """The number of requests that use the model or wait for it."""
    size: int = 0
    """The size of the model's files in the container, in bytes."""
    failure: Exception | None = None


class LoadedModels:
    """Loads and unloads the models of a container, for requests from any thread.

    Args:
        count_starts: returns how often the container has been started. A container that was started again has no
            models.
        max_bytes: limit for the sum of the sizes of all models' files in the container.
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
        self._change_condition = threading.Condition()
        self._entries: OrderedDict[str, LoadedModel] = OrderedDict()
        """The models by their names in the container; the most recently used model is the last."""
        self._is_closed = False
        self._loading_count = 0
        """The number of models that are being loaded."""
        self._start_count = 0
        """How often the container had been started when `_find_or_load` was last called."""
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT_LOADS, "load model")

    def close(self) -> None:
        """Start no more loads, and let no load wait for space. Running loads fail when the host of the container
        ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._change_condition:
            self._is_closed = True
            self._change_condition.notify_all()

    @contextmanager
    def use(self, model: TargetModel, seconds: float) -> Iterator[None]:
        """Load a model unless it is loaded, and keep it loaded during the block.

        Raises:
            ServiceError: ModelNotReadyException if the model is not loaded within `seconds`, but continues to load;
                ValidationError if its archive cannot be extracted.
            LoadError: the container refused to load the model, or its files cannot be stored.
            NoResponseError: the container did not answer.
        """
        entry = self._acquire(model, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._release(entry)

    def forget(self, model: TargetModel) -> None:
        """Remove a model that the container has lost. The next request loads it again."""
        with self._change_condition:
            entry = self._entries.get(model.name)
            if entry is not None and entry.status is LoadStatus.LOADED:
                self._remove(entry)

    def _acquire(self, model: TargetModel, deadline: float) -> LoadedModel:
        """Load a model unless it is loaded, and count the request that uses it."""
        start_time = time.monotonic()
        with self._change_condition:
            entry = self._find_or_load(model)
            was_loaded = entry.status is LoadStatus.LOADED
            while not self._try_use(entry, deadline):
                entry = self._find_or_load(model)
            self._entries.move_to_end(model.name)
            self._metrics.record_request(len(self._entries) - self._loading_count, was_loaded=was_loaded)
        if not was_loaded:
            self._metrics.record_wait(time.monotonic() - start_time)
        return entry

    def _try_use(self, entry: LoadedModel, deadline: float) -> bool:
        """Wait until a model is loaded, and count the request that uses it. Return False if the model was unloaded
        during the wait.

        Raise the error of the load, ModelNotReadyException after the deadline, or NoResponseError after `close`.
        """
        entry.user_count += 1
        try:
            while entry.status in (LoadStatus.LOADING, LoadStatus.UNLOADING):
                if self._is_closed:
                    raise _make_replaced_error()
                if not self._change_condition.wait(max(0.0, deadline - time.monotonic())):
                    raise _make_not_ready_error(entry.model)
            if entry.failure is not None:
                raise entry.failure
        except BaseException:
            entry.user_count -= 1
            raise
        return entry.status is LoadStatus.LOADED

    def _release(self, entry: LoadedModel) -> None:
        with self._change_condition:
            entry.user_count -= 1
            if entry.user_count == 0:
                entry.is_unwanted |= not self._is_caching
                self._unload_unwanted()
                self._change_condition.notify_all()

    def _find_or_load(self, model: TargetModel) -> LoadedModel:
        """Return the entry of a model; begin to load the model if it has no entry. If the container was started again,
        first remove the models that it has lost."""
        if (start_count := self._count_starts()) != self._start_count:
            self._start_count = start_count
            for entry in list(self._entries.values()):
                if entry.status is LoadStatus.LOADED:
                    self._remove(entry)
        return self._entries.get(model.name) or self._start_load(model)

    def _start_load(self, model: TargetModel) -> LoadedModel:
        """Begin to load a model in another thread. Earlier versions of the model become unwanted."""
        for other_entry in self._entries.values():
            other_entry.is_unwanted |= other_entry.model.target == model.target
        entry = LoadedModel(model, self._start_count)
        try:
            self._pool.submit(self._load, entry)
        except RuntimeError:  # `close` has shut the pool down
            raise _make_replaced_error() from None
        self._entries[model.name] = entry
        self._loading_count += 1
        return entry

    def _remove(self, entry: LoadedModel) -> None:
        entry.status = LoadStatus.GONE
        if self._entries.get(entry.model.name) is entry:
            del self._entries[entry.model.name]
        self._change_condition.notify_all()

    # --- in the threads of the pool ---

    def _load(self, entry: LoadedModel) -> None:
        deadline, entry.is_waiting = time.monotonic() + LOAD_TIMEOUT, False
        try:
            self._loader.load(entry.model, _LoadingSpace(self, entry, deadline), deadline)
            if self._count_starts() != entry.start_count:
                raise NoResponseError("the container was started again while it loaded the model", was_sent=False)
        except Exception as error:  # the requests that wait for the model raise this error
            entry.failure = error
        with self._change_condition:
            self._loading_count -= 1
            if entry.failure is not None:
                self._remove(entry)
                return
            entry.status = LoadStatus.LOADED
            self._change_condition.notify_all()
            self._unload_unwanted()

    def reserve(self, entry: LoadedModel, size: int, deadline: float) -> None:
        """Reserve space as `ModelSpace.reserve` does."""
        entry.size = size
        while self._sum_sizes() > self._max_bytes:
            if not self.make_room(entry, deadline):
                problem = f"its files have {size} bytes, and the variant's volume has {self._max_bytes}"
                raise make_space_error(entry.model, f"{problem}: increase VolumeSizeInGB")

    def _sum_sizes(self) -> int:
        with self._change_condition:
            return sum(entry.size for entry in self._entries.values())

    def make_room(self, entry: LoadedModel, deadline: float) -> bool:
        """Unload a model that no request uses: an unwanted model if possible, otherwise the least recently used model.
        If there is no such model, wait until a request, a load or an unload ends.

        Return False if all other models wait, too, if the wait takes too long, or after `close`.
        """
        with self._change_condition:
            if self._is_closed:
                return False
            entry_to_unload = self._choose_entry_to_unload()
            if entry_to_unload is None:
                entry.is_waiting = True
                try:
                    can_change = any(not other_entry.is_waiting for other_entry in self._entries.values())
                    return can_change and self._change_condition.wait(max(0.0, deadline - time.monotonic()))
                finally:
                    entry.is_waiting = False
            entry_to_unload.status = LoadStatus.UNLOADING
        self._unload(entry_to_unload)
        return True

    def _choose_entry_to_unload(self) -> LoadedModel | None:
        idle_entries = [
            entry for entry in self._entries.values() if entry.status is LoadStatus.LOADED and entry.user_count == 0
        ]
        return next((entry for entry in idle_entries if entry.is_unwanted), next(iter(idle_entries), None))

    def _unload_unwanted(self) -> None:
        """Unload the unwanted models that no request uses, in other threads."""
        for entry in self._entries.values():
            if entry.is_unwanted and entry.status is LoadStatus.LOADED and entry.user_count == 0:
                entry.status = LoadStatus.UNLOADING
                threading.Thread(target=self._unload, args=(entry,), name="unload model", daemon=True).start()

    def _unload(self, entry: LoadedModel) -> None:
        try:
            if entry.start_count == self._count_starts():
                self._loader.unload(entry.model)
        finally:
            with self._change_condition:
                self._remove(entry)


class _LoadingSpace:
    """The disk and the memory for one model during its load; see `model_loader.ModelSpace`."""

    def __init__(self, models: LoadedModels, entry: LoadedModel, deadline: float) -> None:
        self._models = models
        self._entry = entry
        self._deadline = deadline

    def reserve(self, size: int) -> None:
        self._models.reserve(self._entry, size, self._deadline)

    def unload_another_model(self) -> bool:
        return self._models.make_room(self._entry, self._deadline)


def _make_replaced_error() -> NoResponseError:
    """Return an error after which the request is sent to the container of a new deployment."""
    return NoResponseError("the container is being replaced", was_sent=False)


def _make_not_ready_error(model: TargetModel) -> ServiceError:
    message = f"Model {model.target} is still being loaded. Try again: the load continues for up to {LOAD_TIMEOUT:g} s."
    return ServiceError("ModelNotReadyException", message, HTTPStatus.TOO_MANY_REQUESTS)
