"""HTTP listener: from bytes on a socket to a WSGI request in which no header is ambiguous."""

from microjobs_orchestrator.local.http.server import HEADERS, Server
from microjobs_orchestrator.local.http.streams import Body

__all__ = ["HEADERS", "Body", "Server"]
