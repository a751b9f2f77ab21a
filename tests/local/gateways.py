"""Gateways in the process of a test, in front of a test's services."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from microjobs_orchestrator.local.gateway.chain import Gateway, list_interceptors
from microjobs_orchestrator.local.gateway.forward import Forwarder
from microjobs_orchestrator.local.gateway.listener import Server
from microjobs_orchestrator.local.gateway.mlflow import MlflowGateway
from microjobs_orchestrator.local.gateway.request_state import AnyService, Interceptor, OwnOperations
from microjobs_orchestrator.local.identity import Credentials


def make_interceptors(
    credentials: Credentials,
    services: Mapping[str, AnyService],
    mlflow: MlflowGateway,
    own_operations: OwnOperations = MappingProxyType({}),
) -> Sequence[Interceptor]:
    """Return the interceptors of a server that neither forwards requests nor serves packages."""
    return list_interceptors(
        credentials,
        services,
        host_names=["localhost", "127.0.0.1"],
        prove=lambda *_: "",
        forwarder=Forwarder({}),
        own_operations=own_operations,
        serve_packages=lambda _: None,
        mlflow=mlflow,
    )


@contextmanager
def serve_gateway(interceptors: Sequence[Interceptor]) -> Iterator[int]:
    """Serve a gateway with these interceptors; yield its port."""
    server = Server(("127.0.0.1", 0), server_name="localhost")
    server.wsgi_app = Gateway(interceptors)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server.bind_addr[1]
    server.stop()
    thread.join()
