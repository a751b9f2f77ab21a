"""The gateway: all steps of a request, from its bytes to its operation."""

import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from werkzeug import Request
from werkzeug.datastructures import EnvironHeaders
from werkzeug.sansio.request import Request as SansioRequest
from werkzeug.utils import cached_property

from microjobs_orchestrator.local.errors import ServiceError, is_disk_full, make_disk_full_error
from microjobs_orchestrator.local.gateway.authentication import make_authenticator, make_signature_reader
from microjobs_orchestrator.local.gateway.claims import AuthError
from microjobs_orchestrator.local.gateway.compression import decompress_body
from microjobs_orchestrator.local.gateway.forward import Forwarder
from microjobs_orchestrator.local.gateway.mlflow import MlflowGateway
from microjobs_orchestrator.local.gateway.operations import (
    make_invoker,
    make_operation_finder,
    make_own_operation_invoker,
    read_members,
)
from microjobs_orchestrator.local.gateway.origin import make_health_check, make_host_check, refuse_requests_of_web_pages
from microjobs_orchestrator.local.gateway.request_state import AnyService, Interceptor, OwnOperations, RequestState
from microjobs_orchestrator.local.gateway.routing import make_service_chooser
from microjobs_orchestrator.local.identity import Credentials, Prover
from microjobs_orchestrator.local.protocols.http import REQUEST_ID
from microjobs_orchestrator.local.protocols.protocol import get_error_style
from microjobs_orchestrator.local.protocols.responses import HttpResponse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)


def list_interceptors(
    credentials: Credentials,
    services: Mapping[str, AnyService],
    host_names: Collection[str],
    prove: Prover,
    forwarder: Forwarder,
    own_operations: OwnOperations,
    serve_packages: Interceptor,
    mlflow: MlflowGateway,
) -> Sequence[Interceptor]:
    """Return the interceptors in their order.

    Args:
        credentials: credentials of the home, with which requests must be signed.
        services: this server's services, by botocore's names.
        host_names: names and addresses of this server without a port. Their subdomains are accepted, too.
        prove: proves to the command line that this is the server of the home.
        forwarder: sends requests for other services to other emulators.
        own_operations: operations of the command line, by path.
        serve_packages: serves Python packages to hosts.
        mlflow: forwards requests to MLflow servers.
    """
    streaming_services = {name for name, service in services.items() if not isinstance(service, Mapping)}
    return (
        make_host_check(host_names),
        refuse_requests_of_web_pages,
        make_health_check(prove),
        serve_packages,
        mlflow.answer_request_with_token,
        make_signature_reader(),
        make_service_chooser(services, forwarder, own_operations),
        make_authenticator(credentials, streaming_services),
        mlflow.answer_signed_request,
        forwarder.forward,
        make_own_operation_invoker(own_operations),
        *list_operation_interceptors(services),
    )


def list_operation_interceptors(services: Mapping[str, AnyService]) -> Sequence[Interceptor]:
    """Return the interceptors that an authenticated request passes through, in their order."""
    return decompress_body, make_operation_finder(services), read_members, make_invoker(services)


class ReceivedRequest(Request):
    """A request from the listener. Its input ends with the body.

    The constructor replaces werkzeug's, which takes twice as long, and makes a reference cycle that would keep the body
    in memory.
    """

    def __init__(self, environ: "WSGIEnvironment") -> None:
        SansioRequest.__init__(
            self,
            environ["REQUEST_METHOD"],
            environ["wsgi.url_scheme"],
            (environ["SERVER_NAME"], int(environ["SERVER_PORT"])),
            environ["SCRIPT_NAME"],
            environ["PATH_INFO"].encode("latin-1").decode(errors="replace"),
            environ["QUERY_STRING"].encode("latin-1"),
            EnvironHeaders(environ),
            environ.get("REMOTE_ADDR"),
        )
        self.environ, self.shallow = environ, False

    @cached_property
    def stream(self) -> IO[bytes]:
        """Replace werkzeug's property: it takes 2 µs to check whether the input ends."""
        stream: IO[bytes] = self.environ["wsgi.input"]
        return stream


class Gateway:
    """WSGI application that passes each request through interceptors until one of them returns a response."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = interceptors

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        environ[REQUEST_ID] = _make_request_id()
        request = ReceivedRequest(environ)
        state = RequestState(request)
        response = self.respond(state)
        response.headers.update({"x-amzn-RequestId": environ[REQUEST_ID], **state.headers})
        return response(environ, start_response)

    def respond(self, state: RequestState) -> HttpResponse:
        try:
            return self._find_response(state)
        except Exception as error:
            # Do not store the ServiceError in a local variable: its traceback refers to this frame, and the reference
            # cycle would keep the body in memory.
            return state.protocol.format_error(_convert_to_service_error(error, state), state.request)
        finally:
            for clean_up in state.cleanups:
                clean_up()

    def _find_response(self, state: RequestState) -> HttpResponse:
        for intercept in self._interceptors:
            if (response := intercept(state)) is not None:
                return response
        raise LookupError("no interceptor has responded")


def _make_request_id() -> str:
    """Return a random UUID of version 4. The module `uuid` takes several times longer to make one."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _convert_to_service_error(error: Exception, state: RequestState) -> ServiceError:
    """Return the error that the client receives. Log an unexpected error: the client receives only the request's id."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, AuthError):
        return error.to_service_error(get_error_style(state.protocol))
    if is_disk_full(error):
        return make_disk_full_error()
    request, request_id = state.request, state.request.environ[REQUEST_ID]
    log.exception("%s %s failed, request %s", request.method, request.path, request_id, exc_info=error)
    return ServiceError("InternalFailure", f"the server failed; see request {request_id} in its log", 500)
