"""The server's WSGI application: which service a request is for, whether it may ask, and the answer.

In this order: the host, the page, the signature, the form, whether it is valid, and can be honoured; then its handler.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError, full, is_full
from microjobs_orchestrator.local.gateway import auth
from microjobs_orchestrator.local.gateway.forward import Forwarder
from microjobs_orchestrator.local.gateway.spool import MAX_FORMS, Spool
from microjobs_orchestrator.local.gateway.validation import validate
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.parity import refuse
from microjobs_orchestrator.local.proof import NONCE, Prover
from microjobs_orchestrator.local.protocols import aws_json, query
from microjobs_orchestrator.local.protocols.models import operation_model, signing_name
from microjobs_orchestrator.local.protocols.wire import wire_of
from microjobs_orchestrator.local.s3.body import Input
from microjobs_orchestrator.local.s3.forms import FORM, Form, is_form
from microjobs_orchestrator.local.s3.service import error_response
from microjobs_orchestrator.local.services import Service

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

RawService = Callable[[Request], Response]
"""A service whose requests are more than a body with members: S3, and SageMaker Runtime. Raises `ServiceError`."""

HEALTH = ("/health", "/_microjobs/health")
RUNTIME = "sagemaker-runtime"
REQUEST_ID = "microjobs.request_id"
"""Where a WSGI environment has the id of its request."""

HOST = re.compile(r"([a-z0-9.-]+)(:\d{1,5})?", re.IGNORECASE)
"""A Host header, of a server that has names and addresses of IPv4 only."""

MAX_BODY_BYTES = {RUNTIME: 25 * 2**20}
"""Limits by service. SageMaker takes 25 MB for an invocation."""
MAX_BODY_BYTES_ELSEWHERE = 8 * 2**20


PROTOCOLS: Mapping[str, auth.Kind] = {
    "json": "json",
    "rest-json": "json",
    "smithy-rpc-v2-cbor": "json",
    "query": "query",
    "ec2": "query",
    "rest-xml": "s3",
}
"""How errors are written, by the protocols of botocore's models."""


class Application:
    """All services behind one address.

    Args:
        credentials: what requests must be signed with.
        services: operations of the JSON and query services, by botocore's name of the service.
        raw: `s3` and `sagemaker-runtime`.
        hosts: names and addresses, without a port, that requests may come to; a bucket's name may stand before them.
        prove: proves to our own command line that this is the server of the home.
    """

    def __init__(
        self,
        credentials: Credentials,
        services: Mapping[str, Service],
        raw: Mapping[str, RawService],
        hosts: Collection[str],
        prove: Prover = lambda *_: "",
        forwarder: Forwarder | None = None,
    ) -> None:
        self._credentials = credentials
        self._services = services
        self._raw = raw
        self._hosts = frozenset(host.lower() for host in hosts)
        self._prove = prove
        self._forwarder = forwarder or Forwarder({})
        self._spool = Spool()
        self._forms = Spool(MAX_FORMS)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        environ[REQUEST_ID] = str(uuid4())
        request = Request(environ, populate_request=False)  # no cycle: the body is freed with the request
        response = self._answer(request)
        response.headers["x-amzn-RequestId"] = environ[REQUEST_ID]
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        kind = _looks_like(request)
        try:
            self._check_host(request)
            _check_page(request)
            if request.path in HEALTH and request.method == "GET" and "Authorization" not in request.headers:
                return self._health(request)
            if kind == "s3" and is_form(request):
                return self._form(request)
            claim = auth.claim(request)
            if self._forwarder.url(claim.service) is not None:
                kind = PROTOCOLS.get(self._forwarder.protocol(claim.service) or "", kind)
                self._authenticate(request, claim, claim.service)
                return self._forwarder.forward(request, claim.service, claim.region)
            service = self._service(request, claim)
            kind = _kind(service)
            self._authenticate(request, claim, service)
            return self._raw[service](request) if service in self._raw else self._operation(service, request)
        except auth.AuthError as error:
            return _failure(kind, error.worded(kind), request)
        except ServiceError as error:
            return _failure(kind, error, request)
        except Exception as error:
            if is_full(error):
                return _failure(kind, full(), request)
            log.exception("%s %s failed, request %s", request.method, request.path, request.environ[REQUEST_ID])
            hint = f"the server failed; its log says why at request {request.environ[REQUEST_ID]}"
            return _failure(kind, ServiceError("InternalFailure", hint, 500), request)

    def _authenticate(self, request: Request, claim: auth.Claim, service: str) -> None:
        """Prove the sender, before the body is read or while it costs no memory; S3 then reads it block by block."""
        with self._spool.open(request, MAX_BODY_BYTES.get(service, MAX_BODY_BYTES_ELSEWHERE)) as body:
            request.environ[auth.PROOF] = auth.verify(request, claim, self._credentials, body.digest)
            if service != "s3":
                request.get_data()

    def _check_host(self, request: Request) -> None:
        """A page in a browser can make a name of its own lead here, but must send that name."""
        sent = request.headers.get("Host", "")
        match = HOST.fullmatch(sent)
        host = match[1].lower() if match else ""
        if not any(host == known or host.endswith(f".{known}") for known in self._hosts):
            names = ", ".join(sorted(self._hosts))
            raise ServiceError("AccessDeniedException", f"host {sent!r} is not this server's, which is {names}", 403)

    def _health(self, request: Request) -> Response:
        """Answer our own command line, which does not sign: it wants to know first whether this is its server."""
        if request.headers.get("Sec-Fetch-Site", "none") != "none":
            raise ServiceError("AccessDeniedException", "pages of other sites may not ask", 403)
        content: dict[str, Any] = {"status": "ok", "pid": os.getpid()}
        nonce = request.args.get("nonce", "")
        if NONCE.fullmatch(nonce):
            content["proof"] = self._prove(nonce, request.environ["SERVER_PORT"])
        return Response(json.dumps(content) + "\n", content_type="application/json")

    def _form(self, request: Request) -> Response:
        """An upload by a form, which is signed in its fields."""
        try:
            with self._forms.wait(request):
                form = Form(request, Input(request.environ["wsgi.input"]))
        except ServiceError as error:
            if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            raise auth.AuthError("missing", f"the form has no signature that can be read: {error.message}") from error
        auth.verify_form(form.fields, self._credentials)
        request.environ[FORM] = form
        return self._raw["s3"](request)

    def _service(self, request: Request, claim: auth.Claim) -> str:
        """Botocore's name of the service that a request is for."""
        if claim.service == "sagemaker" and not request.headers.get("X-Amz-Target"):
            service = RUNTIME if request.path.startswith("/endpoints/") else ""
        else:
            service = next((name for name in self._known() if signing_name(name) == claim.service), "")
        if service not in self._known():
            known = ", ".join(self._known())
            asked = f"{claim.service!r} at {request.path!r}"
            hint = "another emulator can answer it by [local.services] in microjobs.toml"
            raise ServiceError("UnknownService", f"service {asked} is not here; there are: {known}; {hint}", 404)
        return service

    def _known(self) -> list[str]:
        return sorted({*self._services, *self._raw})

    def _operation(self, service: str, request: Request) -> Response:
        wire = wire_of(service)
        name = wire.operation_name(request)
        handler = self._services[service].get(name)
        if handler is None:
            raise _unknown_operation(service, name, self._services[service])
        operation = operation_model(service, name)
        params = wire.parse(operation, request)
        validate(operation, params)
        refuse(service, name, params)
        return wire.answer(operation, handler(params), request.environ[REQUEST_ID])


def _unknown_operation(service: str, name: str, operations: Service) -> ServiceError:
    near = get_close_matches(name, operations, n=1)
    hint = f" (nearest: {near[0]})" if near else ""
    known = ", ".join(sorted(operations))
    message = f"operation {name!r} of {service} is not here{hint}; there are: {known}"
    return ServiceError("UnknownOperationException", message, 404)


def _check_page(request: Request) -> None:
    """No page in a browser may ask, even with an address that is signed: there are no CORS rules here.

    A browser names the page with all that it sends but plain loads; those say in Sec-Fetch-Site that it is a page's.
    """
    page = request.headers.get("Origin")
    if page is not None:
        raise ServiceError(
            "AccessDeniedException", f"pages of {page!r} may not ask: this server has no CORS rules", 403
        )


# --- errors, in the caller's protocol ---


def _looks_like(request: Request) -> auth.Kind:
    """The protocol of a request that does not say, or not truly, which service it is for."""
    content_type = request.headers.get("Content-Type", "")
    if content_type.startswith("application/x-www-form-urlencoded"):
        return "query"
    has_json = content_type.startswith(("application/json", "application/x-amz-json", "application/cbor"))
    return "json" if has_json or request.path.startswith("/endpoints/") else "s3"


def _kind(service: str) -> auth.Kind:
    if service == "s3":
        return "s3"
    return "query" if wire_of(service) is query else "json"


def _failure(kind: auth.Kind, error: ServiceError, request: Request) -> Response:
    if kind == "s3":
        return error_response(error, request)
    failure = query.failure if kind == "query" else aws_json.failure
    return failure(error, request.environ[REQUEST_ID])
