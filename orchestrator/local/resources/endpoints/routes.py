"""Chooses the containers of a replica that process a request.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/multi-container-direct.html
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest, InvocationTarget
from microjobs_orchestrator.local.resources.models.chain import Chain, NamedClient, Sender
from microjobs_orchestrator.local.resources.models.client import Client
from microjobs_orchestrator.local.resources.models.containers import list_containers, list_names, uses_direct_mode
from microjobs_orchestrator.local.resources.models.model_data import is_multi_model
from microjobs_orchestrator.local.resources.models.multi_model import ModelSender

Route = Callable[[Sequence[Client], InferenceRequest], Sender]
"""A function that takes the clients of all containers and a request, and returns the sender for the request. It raises
ServiceError for a wrong target."""


def make_route(model: Mapping[str, Any], folder: Path) -> Route:
    """Return the route to the containers of a CreateModel request. `folder` is for responses that a container
    passes to the next container."""
    names, multi_model_flags = list_names(model), [is_multi_model(container) for container in list_containers(model)]

    def route_to_all_containers(clients: Sequence[Client], request: InferenceRequest) -> Sender:
        refuse_named_container(request.target)
        named_clients = [NamedClient(client, name) for client, name in zip(clients, names, strict=True)]
        senders = [
            _address_model(client, request) if has_models else client
            for client, has_models in zip(named_clients, multi_model_flags, strict=True)
        ]
        return Chain(senders, folder, request.timer.mark_response)

    def route_to_named_container(clients: Sequence[Client], request: InferenceRequest) -> Sender:
        target = request.target
        if target.container is None or target.container not in names:
            problem = f"{target.container} does not exist" if target.container else "is missing"
            raise _make_error(
                f"TargetContainerHostname {problem}: the model has InferenceExecutionConfig Mode Direct, and its "
                f"containers are {', '.join(names)}."
            )
        return NamedClient(clients[names.index(target.container)], target.container)

    if uses_direct_mode(model):
        return route_to_named_container
    return route_to_all_containers if len(names) > 1 else route_to_only_container


def route_to_only_container(clients: Sequence[Client], request: InferenceRequest) -> Sender:
    """Return the sender for the only container of a model."""
    refuse_named_container(request.target)
    return _address_model(clients[0], request)


def _address_model(sender: Sender, request: InferenceRequest) -> Sender:
    """Return a sender for the loaded model of a request, or for the container of a request without a model."""
    return sender if request.model is None else ModelSender(sender, request.model)


def refuse_named_container(target: InvocationTarget) -> None:
    """Raise ServiceError ValidationError if a request names a container, although the model does not allow it."""
    if target.container is not None:
        raise _make_error(
            f"TargetContainerHostname {target.container} requires a model whose InferenceExecutionConfig has the Mode "
            "Direct: remove the member, or create the model with this mode."
        )


def _make_error(message: str) -> ServiceError:
    return ServiceError("ValidationError", message)
