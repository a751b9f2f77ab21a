"""The state of one request in the gateway, and the interfaces of interceptors and services."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from botocore.model import OperationModel
from werkzeug import Request

from microjobs_orchestrator.local.gateway.claims import Claim
from microjobs_orchestrator.local.gateway.forms import Form
from microjobs_orchestrator.local.gateway.signatures import VerifiedSignature
from microjobs_orchestrator.local.protocols.protocol import WireProtocol, guess_protocol
from microjobs_orchestrator.local.protocols.responses import HttpResponse
from microjobs_orchestrator.local.protocols.results import OperationResult, Service

OWN_SERVICE = "microjobs"
"""Name of the service for the project's own command line. Its operations do not exist on AWS."""

MLFLOW_SERVICE = "mlflow"
"""Name of the service for requests of MLflow clients, which are forwarded to MLflow servers."""
MLFLOW_HEADERS = ("x-mlflow-sm-tracking-server-arn", "x-sm-mlflow-app-arn")
"""Headers in which the package sagemaker-mlflow names the MLflow server of a request."""

SANDBOX_HEADERS: Mapping[str, str] = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"}
"""Headers that protect the console's session from objects of buckets, such as a page that a job wrote: with these
headers, browsers give the page another origin than the console's."""

OwnOperations = Mapping[str, Callable[[Any], None]]
"""Operations of `OWN_SERVICE` by path. Each is a function of the body's JSON value, and raises ServiceError to refuse
the request."""


@dataclass
class RequestState:
    """A request with its attributes. Interceptors set attributes, and later interceptors read them."""

    request: Request
    claim: Claim = field(init=False)
    """The signer of the request and the parts that are signed, according to the request itself."""
    form: Form | None = None
    """The upload form, if the request has one."""
    signature: VerifiedSignature | None = None
    """The verified signature; None for version 2 and for upload forms, which do not allow signed chunks."""
    service: str = ""
    """Botocore's name of the service, `OWN_SERVICE` or `MLFLOW_SERVICE`; empty if another emulator answers."""
    operation: OperationModel = field(init=False)
    members: dict[str, Any] = field(init=False)
    format_result: Callable[[OperationResult], HttpResponse] | None = None
    """Replaces the protocol's format of the result."""
    headers: Mapping[str, str] = field(default_factory=lambda: SANDBOX_HEADERS)
    """Headers that the gateway adds to the response, also to an error."""
    cleanups: list[Callable[[], None]] = field(default_factory=list)
    """Functions that the gateway calls when the response is ready or the request has failed."""

    @cached_property
    def protocol(self) -> WireProtocol:
        """Protocol of the response. Until an interceptor sets it, it is a guess, with which errors are formatted."""
        return guess_protocol(self.request)


Interceptor = Callable[[RequestState], HttpResponse | None]
"""A step of the gateway: it returns a response, or None to pass the request on. It raises ServiceError or AuthError."""


class StreamingService(Protocol):
    """A service whose requests and results have bodies of any size, such as S3."""

    @property
    def operations(self) -> Collection[str]: ...

    def prepare(self, state: RequestState) -> None:
        """Set up the body of an authenticated request, before its operation is known."""

    def invoke(self, state: RequestState) -> OperationResult:
        """Perform the operation."""


AnyService = Service | StreamingService
