"""Replicas with a multi-model container: requests name a model, which is loaded when the first request names it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import IO, Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints.container_replica import ContainerReplica
from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest
from microjobs_orchestrator.local.resources.endpoints.loaded_models import LoadedModels
from microjobs_orchestrator.local.resources.endpoints.model_loader import ModelLoader
from microjobs_orchestrator.local.resources.endpoints.model_metrics import ModelMetrics
from microjobs_orchestrator.local.resources.endpoints.multi_model_container import LoadError, MultiModelContainer
from microjobs_orchestrator.local.resources.endpoints.routes import refuse_named_container
from microjobs_orchestrator.local.resources.endpoints.streams import ResponseStream
from microjobs_orchestrator.local.resources.models.client import NoResponseError, ResponseHead
from microjobs_orchestrator.local.resources.models.containers import Container, list_containers, list_names
from microjobs_orchestrator.local.resources.models.model_data import is_multi_model
from microjobs_orchestrator.local.resources.models.multi_model import ModelFinder, TargetModel
from microjobs_orchestrator.local.resources.models.serving import UnhealthyError
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.tasks import call_in_thread

GB = 1 << 30
DEFAULT_VOLUME_GB = 30
"""VolumeSizeInGB of a variant without this member."""


class MultiModelReplica:
    """A replica with a container that loads and unloads models. The replica may have other containers before and after
    it.

    Args:
        replica: runs the containers.
        model: the CreateModel request.
        volume_gb: the space for the extracted models, in GB.
    """

    def __init__(self, context: Context, replica: ContainerReplica, model: Mapping[str, Any], volume_gb: int) -> None:
        self._replica = replica
        self.variant, self.instance_id, self.plan_name = replica.variant, replica.instance_id, replica.plan_name
        self.traffic, self.abandon, self.note = replica.traffic, replica.abandon, replica.note
        number, container = find_container(model)
        self._finder = ModelFinder(context.store, container)
        self._container_name = list_names(model)[number]
        self._container = MultiModelContainer(replica, number)
        metrics = ModelMetrics(context.metrics, self.plan_name.split("/")[1], self.variant)
        loader = ModelLoader(self._container, context.get_work_folder(self.plan_name) / "loading", metrics, self.note)
        self._models = LoadedModels(
            loader, lambda: replica.start_count, metrics, volume_gb * GB, is_caching=_is_caching(container)
        )

    def start(self, hosts: Sequence[Host] = ()) -> None:
        self._replica.start(hosts)
        try:
            if hosts:  # the models in running hosts may be older than the models in the bucket
                self._container.clear()
            else:
                self._container.list_models()  # raises UnhealthyError if the container has no API for models
        except NoResponseError as error:
            raise UnhealthyError(f"GET /models was not answered: {error}.") from error

    @property
    def is_serving(self) -> bool:
        return self._replica.is_serving

    def stop(self, grace: float) -> None:
        self._models.close()
        self._replica.stop(grace)

    def invoke(self, request: InferenceRequest, into: IO[bytes]) -> ResponseHead:
        return call_in_thread(partial(self._invoke_model, request, into))

    def _invoke_model(self, request: InferenceRequest, into: IO[bytes]) -> ResponseHead:
        model, deadline = self._find_model(request), time.monotonic() + request.timeout
        response = self._load_and_invoke(model, request, deadline, into)
        if self._has_lost_model(model, response):
            self._models.forget(model)
            into.seek(0)
            into.truncate()
            response = self._load_and_invoke(model, request, deadline, into)
        return response

    def _has_lost_model(self, model: TargetModel, response: ResponseHead) -> bool:
        """Return whether the response is an error that the container sent because it has lost the model."""
        is_missing = response.status == HTTPStatus.NOT_FOUND and response.container == self._container_name
        return is_missing and not self._container.is_loaded(model)

    def _load_and_invoke(
        self, model: TargetModel, request: InferenceRequest, deadline: float, into: IO[bytes]
    ) -> ResponseHead:
        """Load the model, and send a request to it. If the container refuses to load the model, return its refusal."""
        try:
            with self._models.use(model, deadline - time.monotonic()):
                seconds_left = max(0.001, deadline - time.monotonic())
                return self._replica.invoke(replace(request, timeout=seconds_left, model=model), into)
        except LoadError as error:
            into.write(error.body)
            return replace(error.response, container=self._container_name)

    def stream(self, request: InferenceRequest) -> ResponseStream:  # noqa: ARG002
        """Raise ServiceError: InvokeEndpointWithResponseStream has no TargetModel."""
        raise _make_target_error()

    def _find_model(self, request: InferenceRequest) -> TargetModel:
        refuse_named_container(request.target)
        if request.target.model is None:
            raise _make_target_error()
        return self._finder.find(request.target.model)


def find_container(model: Mapping[str, Any]) -> tuple[int, Container]:
    """Return the number of the multi-model container of a CreateModel request, from 0, and the container."""
    containers = enumerate(list_containers(model))
    return next((number, container) for number, container in containers if is_multi_model(container))


def _is_caching(container: Mapping[str, Any]) -> bool:
    return bool(container.get("MultiModelConfig", {}).get("ModelCacheSetting", "Enabled") == "Enabled")


def _make_target_error() -> ServiceError:
    return ServiceError(
        "ValidationError",
        "The request is missing a target model header: a multi-model endpoint requires TargetModel, the path of a "
        "model below the prefix.",
    )
