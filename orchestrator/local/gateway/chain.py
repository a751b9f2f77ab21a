"""The gateway: all steps of a request, from its bytes to its operation."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError, is_disk_full, make_disk_full_error
from microjobs_orchestrator.local.gateway.authentication import make_authenticator, make_signature_reader
from microjobs_orchestrator.local.gateway.claims import AuthError
from microjobs_orchestrator.local.gateway.compression import decompress_body
from microjobs_orchestrator.local.gateway.exchange import AnyService, Exchange, Interceptor, OwnOperations
from microjobs_orchestrator.local.gateway.forward import Forwarder
from microjobs_orchestrator.local.gateway.mlflow import MlflowGateway
from microjobs_orchestrator.local.gateway.operations import (
    make_invoker,
    make_operation_finder,
    make_own_operations,
    read_members,
)
from microjobs_orchestrator.local.gateway.origin import make_health_check, make_host_check, refuse_pages
from microjobs_orchestrator.local.gateway.routing import make_service_choice
from microjobs_orchestrator.local.identity import Credentials, Prover
from microjobs_orchestrator.local.protocols.http import REQUEST_ID
from microjobs_orchestrator.local.protocols.protocol import get_error_style, guess_protocol

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)


def list_interceptors(
    credentials: Credentials,
    services: Mapping[str, AnyService],
    hosts: Collection[str],
    prove: Prover,
    forwarder: Forwarder,
    own_operations: OwnOperations,
    serve_packages: Interceptor,
    mlflow: MlflowGateway,
) -> Sequence[Interceptor]:
    """Return the interceptors in their order.

    Args:
        credentials: credentials of the home, with which requests must be signed.
        services: handlers by botocore's name of the service.
        hosts: names and addresses of this server without a port. Their subdomains are accepted, too.
        prove: proves to the command line that this is the server of the home.
        forwarder: sends requests for other services to other emulators.
        own_operations: operations of the command line, by path.
        serve_packages: serves Python packages to hosts.
        mlflow: forwards requests to MLflow servers.
    """
    return (
        make_host_check(hosts),
        refuse_pages,
        make_health_check(prove),
        serve_packages,
        mlflow.answer_token,
        make_signature_reader(),
        make_service_choice(services, forwarder, own_operations),
        make_authenticator(
            credentials, {name for name, service in services.items() if not isinstance(service, Mapping)}
        ),
        mlflow.answer_signed,
        forwarder.forward,
        make_own_operations(own_operations),
        *list_operation_interceptors(services),
    )


def list_operation_interceptors(services: Mapping[str, AnyService]) -> Sequence[Interceptor]:
    """Return the interceptors that an authenticated request passes through, in their order."""
    return decompress_body, make_operation_finder(services), read_members, make_invoker(services)


class _HeaderAdder:
    """Starts a response with further headers, which replace those with the same names."""

    def __init__(self, start_response: "StartResponse", headers: Mapping[str, str]) -> None:
        self._start_response = start_response
        self._headers = headers

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        names = {name.lower() for name in self._headers}
        kept = [header for header in headers if header[0].lower() not in names]
        return self._start_response(status, [*kept, *self._headers.items()], exc_info)


class Gateway:
    """WSGI application that passes each request through interceptors until one of them returns a response."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = interceptors

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        environ[REQUEST_ID] = str(uuid4())
        request = Request(environ, populate_request=False)  # avoids a reference cycle, which would keep the body
        exchange = Exchange(request, guess_protocol(request))
        response = self.respond(exchange)
        headers = {"x-amzn-RequestId": environ[REQUEST_ID], **exchange.headers}
        return response(environ, _HeaderAdder(start_response, headers))

    def respond(self, exchange: Exchange) -> Response:
        try:
            return self._find_response(exchange)
        except Exception as error:
            # Do not assign the ServiceError: its traceback refers to this frame, and the cycle would keep the body.
            return exchange.protocol.format_error(_describe_failure(error, exchange), exchange.request)
        finally:
            for clean_up in exchange.cleanups:
                clean_up()

    def _find_response(self, exchange: Exchange) -> Response:
        for intercept in self._interceptors:
            if (response := intercept(exchange)) is not None:
                return response
        raise LookupError("no interceptor has responded")


def _describe_failure(error: Exception, exchange: Exchange) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, AuthError):
        return error.to_service_error(get_error_style(exchange.protocol))
    if is_disk_full(error):
        return make_disk_full_error()
    request, request_id = exchange.request, exchange.request.environ[REQUEST_ID]
    log.exception("%s %s failed, request %s", request.method, request.path, request_id, exc_info=error)
    return ServiceError("InternalFailure", f"the server failed; see request {request_id} in its log", 500)
