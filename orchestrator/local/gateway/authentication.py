"""Authentication: one interceptor reads the signature, a later one verifies it when the service is known."""

from collections.abc import Container
from http import HTTPStatus

from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.claims import AuthError, Claim, read_claim
from microjobs_orchestrator.local.gateway.exchange import OWN_SERVICE, Exchange, Interceptor
from microjobs_orchestrator.local.gateway.forms import Form, is_form
from microjobs_orchestrator.local.gateway.signatures import verify, verify_form
from microjobs_orchestrator.local.gateway.spool import MAX_FORMS, Spool
from microjobs_orchestrator.local.gateway.streams import Input
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.protocols.protocol import get_protocol

MAX_BODY_BYTES = 8 << 20
MAX_BODY_BYTES_BY_SERVICE = {"sagemaker-runtime": 25 << 20, OWN_SERVICE: 64 << 10}
"""Limits of bodies that are read before the sender is proven."""

FORM_CLAIM = Claim("", "", "s3", "", (), "")


def make_signature_reader() -> Interceptor:
    """Return an interceptor that reads a request's signature, or the fields of an upload form, which include it."""
    spool = Spool(MAX_FORMS)

    def read_signature(exchange: Exchange) -> None:
        if exchange.protocol is get_protocol("rest-xml") and is_form(exchange.request):
            exchange.form, exchange.claim = _read_form(exchange.request, spool), FORM_CLAIM
        else:
            exchange.claim = read_claim(exchange.request)

    return read_signature


def _read_form(request: Request, spool: Spool) -> Form:
    try:
        with spool.wait(request):
            return Form(request, Input(request.environ["wsgi.input"]))
    except ServiceError as error:
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        raise AuthError("missing", f"the form's signature cannot be read: {error.message}") from error


def make_authenticator(credentials: Credentials, streaming: Container[str]) -> Interceptor:
    """Return an interceptor that verifies the signature, before the body is read or while it uses little memory.

    Args:
        credentials: the home's.
        streaming: services that read the body themselves.
    """
    spool = Spool()

    def authenticate(exchange: Exchange) -> None:
        if exchange.form is not None:
            verify_form(exchange.form.fields, credentials)
            return
        limit = MAX_BODY_BYTES_BY_SERVICE.get(exchange.service, MAX_BODY_BYTES)
        with spool.open(exchange.request, limit) as digest:
            exchange.proof = verify(exchange.request, exchange.claim, credentials, digest)
            if exchange.service not in streaming:
                exchange.request.get_data()

    return authenticate
