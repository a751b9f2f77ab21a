"""Chooses the service of a request: a service of this server, or a service that another emulator answers."""

from collections.abc import Collection, Container

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.exchange import OWN_SERVICE, Exchange, Interceptor
from microjobs_orchestrator.local.gateway.forward import Forwarder
from microjobs_orchestrator.local.protocols.models import signing_name
from microjobs_orchestrator.local.protocols.protocol import get_protocol, protocol_of
from microjobs_orchestrator.local.protocols.rest_routes import has_path


def make_service_choice(services: Collection[str], forwarder: Forwarder, own_paths: Container[str]) -> Interceptor:
    """Return an interceptor that finds the service, and with it the protocol of the response.

    Args:
        services: botocore's names of this server's services.
        own_paths: paths of `OWN_SERVICE`.
    """
    known = sorted(services)
    by_signing_name: dict[str, list[str]] = {}
    for name in known:
        by_signing_name.setdefault(signing_name(name), []).append(name)

    def choose_service(exchange: Exchange) -> None:
        request, signed = exchange.request, exchange.claim.service
        if request.method == "POST" and request.path in own_paths and exchange.form is None:
            exchange.service, exchange.protocol = OWN_SERVICE, get_protocol("json")
        elif forwarder.find_url(signed) is not None:
            if protocol := forwarder.find_protocol(signed):
                exchange.protocol = get_protocol(protocol)
        else:
            exchange.service = _choose(by_signing_name.get(signed, []), exchange)
            if not exchange.service:
                hint = "another emulator can answer it by [local.services] in microjobs.toml"
                message = f"service {signed!r} at {request.path!r} is not supported; supported: {', '.join(known)}"
                raise ServiceError("UnknownService", f"{message}; {hint}", 404)
            exchange.protocol = protocol_of(exchange.service)

    return choose_service


def _choose(names: Collection[str], exchange: Exchange) -> str:
    """Return the service of a request among services that share a signing name; empty if no service matches.

    SageMaker and SageMaker Runtime both sign as `sagemaker`. SageMaker has the json protocol, so its requests have
    X-Amz-Target. Paths of SageMaker Runtime start like the paths of its operations.
    """
    if len(names) < 2:
        return next(iter(names), "")
    is_json = "X-Amz-Target" in exchange.request.headers
    candidates = (name for name in names if (protocol_of(name) is get_protocol("json")) == is_json)
    return next((name for name in candidates if is_json or has_path(name, exchange.request.path)), "")
