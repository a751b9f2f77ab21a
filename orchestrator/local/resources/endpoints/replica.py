"""The interface of replicas, which serve the variants of a deployment."""

from collections.abc import Sequence
from typing import IO, Protocol

from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest
from microjobs_orchestrator.local.resources.endpoints.streams import ResponseStream
from microjobs_orchestrator.local.resources.endpoints.traffic import Traffic
from microjobs_orchestrator.local.resources.models.client import ResponseHead
from microjobs_orchestrator.local.runtimes.base import Host


class Replica(Protocol):
    """Serves a variant, until the replica is stopped. Methods may be called from any thread."""

    variant: str
    instance_id: str
    plan_name: str
    """The name of the plan of its hosts. A restarted server finds the hosts by this name."""
    traffic: Traffic

    @property
    def is_serving(self) -> bool:
        """Whether the replica can receive requests now. It cannot while its hosts are started again."""

    def start(self, hosts: Sequence[Host] = ()) -> None:
        """Start the hosts, or resume with the running `hosts` of an earlier server; return when they serve.

        Raises:
            CannotRunError: the hosts cannot start, or are not healthy (UnhealthyError).
            ServiceError: the model data does not exist any more.
            StoppedError: `abandon` was called.
        """

    def abandon(self) -> None:
        """Make a waiting `start` raise StoppedError; call `stop` afterwards."""

    def stop(self, grace: float) -> None:
        """End the hosts with SIGTERM, and with SIGKILL after `grace` seconds; remove them and their files."""

    def invoke(self, request: InferenceRequest, into: IO[bytes]) -> ResponseHead:
        """Send a request to the model, and write the body of the response to a file.

        Raise the errors of `Client.request`. Also raise NoResponseError while a host restarts, and ServiceError if the
        replica refuses the request, for example because the request's target model does not exist.
        """

    def stream(self, request: InferenceRequest) -> ResponseStream:
        """Send a request to the model, and return its response as soon as the headers have arrived.

        Raise NoResponseError and ServiceError as `invoke` does.
        """

    def note(self, sentence: str) -> None:
        """Write a sentence to the logs of the server and of the replica."""
