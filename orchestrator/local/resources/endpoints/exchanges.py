"""Requests for predictions, and the exchanges that observers of an endpoint receive."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from microjobs_orchestrator.local.resources.models.client import PRIMARY, Body, ResponseHead
from microjobs_orchestrator.local.resources.models.multi_model import TargetModel

TARGET_MEMBERS = ("TargetVariant", "TargetModel", "TargetContainerHostname", "InferenceComponentName")
"""The members of a request that select its target, in the order of the fields of `InvocationTarget`."""


@dataclass
class InvocationTarget:
    """The variant, the model, the container or the component that must respond to a request. If a field is None, the
    endpoint chooses."""

    variant: str | None = None
    model: str | None = None
    """The path of an archive below the prefix of a multi-model container."""
    container: str | None = None
    """The host name of a container in a model with several containers."""
    component: str | None = None

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> "InvocationTarget":
        return cls(*map(request.get, TARGET_MEMBERS))


class ReplicaIdentity(Protocol):
    """The variant and the instance of a replica."""

    variant: str
    instance_id: str


class Timer:
    """Measures the parts of an exchange. It starts when the local server has received the request."""

    def __init__(self) -> None:
        self._receive_time = self._send_time = time.monotonic()
        self._response_times: dict[str, float] = {}
        """The time of each response in a chain except the last one, by container, in the order of the chain."""

    def mark_sent(self) -> None:
        """Record that the request is now sent to the container. Only the last call counts."""
        self._send_time = time.monotonic()
        self._response_times = {}

    def mark_response(self, container: str) -> None:
        """Record that one of several containers has responded completely, and that the next container gets its
        response."""
        self._response_times[container] = time.monotonic()

    def make_exchange(
        self,
        endpoint: str,
        replica: ReplicaIdentity,
        request: "InferenceRequest",
        response: ResponseHead | None,
        body: Body = None,
    ) -> "Exchange":
        """Return the exchange that ends now. `response` is None if the container has not responded."""
        status, headers = (response.status, response.headers) if response is not None else (None, {})
        end = time.monotonic()
        return Exchange(
            endpoint,
            replica.variant,
            replica.instance_id,
            request,
            status,
            headers,
            body,
            model_seconds=end - self._send_time,
            overhead_seconds=self._send_time - self._receive_time,
            container_seconds=self._measure_containers(response.container if response is not None else PRIMARY, end),
        )

    def _measure_containers(self, last_container: str, end: float) -> Mapping[str, float]:
        """Return the seconds that each of several containers took.

        Args:
            last_container: the container that responded last; PRIMARY if the model has one container, or if a container
                of a chain did not respond.
            end: the time of its response.
        """
        if last_container == PRIMARY and not self._response_times:
            return {}
        end_times = self._response_times if last_container == PRIMARY else {**self._response_times, last_container: end}
        times = pairwise((self._send_time, *end_times.values()))
        return {name: after - before for name, (before, after) in zip(end_times, times, strict=True)}


@dataclass
class InferenceRequest:
    """A request for a prediction."""

    body: Body
    headers: Mapping[str, str]
    timeout: float
    """Seconds for the whole exchange."""
    max_bytes: float = float("inf")
    """Maximum size of the response. A larger response raises TooLargeError."""
    target: InvocationTarget = field(default_factory=InvocationTarget)
    model: TargetModel | None = None
    """The loaded model that responds in a multi-model container."""
    timer: Timer = field(default_factory=Timer, compare=False, repr=False)
    """The timer starts when the request is received."""


@dataclass
class Exchange:
    """A request and its result. It is complete: the response has ended, or there is none."""

    endpoint: str
    variant: str
    instance_id: str
    request: InferenceRequest
    status: int | None
    """The status of the response; None if the container did not respond, or not completely."""
    headers: Mapping[str, str]
    """The headers of the response."""
    body: Body
    """The body of the response; None for a response stream. If it is a function, it can be called only until the
    observer returns."""
    model_seconds: float
    overhead_seconds: float
    """The time that the local server needed, in addition to the container."""
    container_seconds: Mapping[str, float] = field(default_factory=dict)
    """The duration for each container that has responded, by its name; empty if the model has one container."""


Observer = Callable[[Exchange], None]
"""A function that receives each exchange in the thread of the request. It must return quickly, and must not raise."""
