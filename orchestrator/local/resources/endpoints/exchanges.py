"""Requests for predictions, and the exchanges that observers of an endpoint receive."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from microjobs_orchestrator.local.resources.models.client import PRIMARY, Answer, Body
from microjobs_orchestrator.local.resources.models.multi_model import TargetModel

TARGET_MEMBERS = {
    "variant": "TargetVariant",
    "model": "TargetModel",
    "container": "TargetContainerHostname",
    "component": "InferenceComponentName",
}
"""The members of an invocation that choose what responds, by the fields of `Target`."""


@dataclass(frozen=True)
class Target:
    """What must respond to a request. None: the endpoint chooses."""

    variant: str | None = None
    model: str | None = None
    """The path of an archive below the prefix of a multi-model container."""
    container: str | None = None
    """The host name of a container in a model with several containers."""
    component: str | None = None

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> "Target":
        return cls(**{name: request.get(member) for name, member in TARGET_MEMBERS.items()})


class Identity(Protocol):
    """The names of a replica."""

    variant: str
    instance_id: str


class Timer:
    """Measures the parts of an exchange. It starts when the local server has received the request."""

    def __init__(self) -> None:
        self._received = self._sent = time.monotonic()
        self._responses: dict[str, float] = {}
        """The times of responses by container, in the order of a chain, without the last one."""

    def mark_sent(self) -> None:
        """Note that the request is now sent to the container. The last call counts."""
        self._sent = time.monotonic()
        self._responses = {}

    def mark_response(self, container: str) -> None:
        """Note that one of several containers has responded completely, and that the next one gets its response."""
        self._responses[container] = time.monotonic()

    def make_exchange(
        self,
        endpoint: str,
        replica: Identity,
        request: "InferenceRequest",
        answer: Answer | None,
        body: Body = None,
    ) -> "Exchange":
        """Return the exchange that ends now. Without an answer, the container has not responded."""
        status, headers = (answer.status, answer.headers) if answer is not None else (None, {})
        end = time.monotonic()
        return Exchange(
            endpoint,
            replica.variant,
            replica.instance_id,
            request,
            status,
            headers,
            body,
            model_seconds=end - self._sent,
            overhead_seconds=self._sent - self._received,
            container_seconds=self._measure_containers(answer.container if answer is not None else PRIMARY, end),
        )

    def _measure_containers(self, last: str, end: float) -> Mapping[str, float]:
        """Return the seconds of each container of several ones. `last` has responded last, at the time `end`."""
        if last == PRIMARY and not self._responses:
            return {}
        ends = self._responses if last == PRIMARY else {**self._responses, last: end}
        times = pairwise((self._sent, *ends.values()))
        return {name: after - before for name, (before, after) in zip(ends, times, strict=True)}


@dataclass(frozen=True)
class InferenceRequest:
    """A request for a prediction."""

    body: Body
    headers: Mapping[str, str]
    timeout: float
    """Seconds for the whole exchange."""
    max_bytes: float = float("inf")
    """The largest response; a larger one raises TooLargeError."""
    target: Target = field(default_factory=Target)
    model: TargetModel | None = None
    """The loaded model that responds in a multi-model container."""
    timer: Timer = field(default_factory=Timer, compare=False, repr=False)
    """Starts with the request."""


@dataclass(frozen=True)
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
    """The body of the response; None for a response stream. Observers may call a function only before they return."""
    model_seconds: float
    overhead_seconds: float
    """The time that the local server needed, in addition to the container."""
    container_seconds: Mapping[str, float] = field(default_factory=dict)
    """The time of each container that has responded, by name, if the model has several containers."""


Observer = Callable[[Exchange], None]
"""Receives each exchange in the thread of the request. It must return at once, and not raise."""
