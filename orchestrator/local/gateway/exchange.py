"""The state of one request in the gateway, and the interfaces of interceptors and services."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from botocore.model import OperationModel
from werkzeug import Request, Response

from microjobs_orchestrator.local.gateway.claims import Claim
from microjobs_orchestrator.local.gateway.forms import Form
from microjobs_orchestrator.local.gateway.signatures import Proof
from microjobs_orchestrator.local.protocols.answer import Answer, Service
from microjobs_orchestrator.local.protocols.protocol import WireProtocol

OWN_SERVICE = "microjobs"
"""Name of the service for the project's own command line. Its operations do not exist on AWS."""

MLFLOW_SERVICE = "mlflow"
"""Name of the service for requests of MLflow clients, which are forwarded to MLflow servers."""
MLFLOW_HEADERS = ("x-mlflow-sm-tracking-server-arn", "x-sm-mlflow-app-arn")
"""Headers in which the package sagemaker-mlflow names the MLflow server of a request."""

SANDBOX_HEADERS: Mapping[str, str] = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"}
"""Headers that protect the console's session from objects of buckets, such as a page that a job wrote: browsers
give the page its own origin."""

OwnOperations = Mapping[str, Callable[[Any], None]]
"""Operations of `OWN_SERVICE` by path. Each is a function of the body's JSON value, and raises ServiceError to refuse
the request."""


@dataclass
class Exchange:
    """A request, and its attributes that interceptors set and later interceptors read."""

    request: Request
    protocol: WireProtocol
    """Protocol of the response: a guess until the service is known."""
    claim: Claim = field(init=False)
    form: Form | None = None
    """The upload form, if the request has one."""
    proof: Proof | None = None
    """The verified signature; None for version 2 and for upload forms, whose signatures chunks cannot continue."""
    service: str = ""
    """Botocore's name of the service; empty if another emulator answers."""
    operation: OperationModel = field(init=False)
    members: dict[str, Any] = field(init=False)
    format_answer: Callable[[Answer], Response] | None = None
    """Replaces the protocol's format of the result."""
    headers: Mapping[str, str] = field(default_factory=lambda: SANDBOX_HEADERS)
    """Headers of the response, and of an error."""
    cleanups: list[Callable[[], None]] = field(default_factory=list)
    """Called when the response is ready, or the request has failed."""


Interceptor = Callable[[Exchange], Response | None]
"""A step of the gateway: it returns a response, or None to pass the request on. It raises ServiceError or AuthError."""


class StreamingService(Protocol):
    """A service whose requests and results have bodies of any size, such as S3."""

    @property
    def operations(self) -> Collection[str]: ...

    def prepare(self, exchange: Exchange) -> None:
        """Set up the body of an authenticated request, before its operation is known."""

    def invoke(self, exchange: Exchange) -> Answer:
        """Perform the operation."""


AnyService = Service | StreamingService
