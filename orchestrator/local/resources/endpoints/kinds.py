"""The kinds of endpoints and of their configurations."""

from microjobs_orchestrator.local.resources.kind import Kind

ENDPOINT_CONFIG = Kind("endpoint-config", "EndpointConfig")
ENDPOINT = Kind("endpoint", "Endpoint")
