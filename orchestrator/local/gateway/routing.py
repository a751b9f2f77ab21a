"""Which service a request is for: one of this server's, or one that another emulator answers."""

from collections.abc import Collection

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.exchange import Exchange, Interceptor
from microjobs_orchestrator.local.gateway.forward import Forwarder
from microjobs_orchestrator.local.protocols.models import signing_name
from microjobs_orchestrator.local.protocols.protocol import get_protocol, protocol_of
from microjobs_orchestrator.local.protocols.rest_routes import has_path


def make_service_choice(services: Collection[str], forwarder: Forwarder) -> Interceptor:
    """Return an interceptor that finds the service, and with it the protocol of the response.

    Args:
        services: botocore's names of this server's services.
    """
    known = sorted(services)
    by_signing_name: dict[str, list[str]] = {}
    for name in known:
        by_signing_name.setdefault(signing_name(name), []).append(name)

    def choose_service(exchange: Exchange) -> None:
        signed = exchange.claim.service
        if forwarder.find_url(signed) is not None:
            if protocol := forwarder.find_protocol(signed):
                exchange.protocol = get_protocol(protocol)
            return
        exchange.service = _choose(by_signing_name.get(signed, []), exchange)
        if not exchange.service:
            asked = f"{signed!r} at {exchange.request.path!r}"
            hint = "another emulator can answer it by [local.services] in microjobs.toml"
            message = f"service {asked} is not supported; supported: {', '.join(known)}; {hint}"
            raise ServiceError("UnknownService", message, 404)
        exchange.protocol = protocol_of(exchange.service)

    return choose_service


def _choose(names: Collection[str], exchange: Exchange) -> str:
    """Return the service that a request is for, of those that share a signing name; empty if it is for none.

    SageMaker and SageMaker Runtime both sign as `sagemaker`. A request with X-Amz-Target is for the one with the json
    protocol, others are for the one whose addresses begin as theirs.
    """
    if len(names) < 2:
        return next(iter(names), "")
    is_json = "X-Amz-Target" in exchange.request.headers
    matches = (
        name
        for name in names
        if (protocol_of(name) is get_protocol("json")) == is_json and (is_json or has_path(name, exchange.request.path))
    )
    return next(matches, "")
