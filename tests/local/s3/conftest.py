"""Fixtures: the service S3 behind a real HTTP server, and boto3 as its client."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from microjobs_orchestrator.local.gateway.chain import Gateway, list_operation_interceptors
from microjobs_orchestrator.local.gateway.listener import Server
from microjobs_orchestrator.local.gateway.request_state import AnyService, RequestState
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import REGION
from microjobs_orchestrator.local.protocols.protocol import get_protocol
from microjobs_orchestrator.local.s3.service import S3
from microjobs_orchestrator.local.s3.store import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    MakeClient = Callable[[Config | None], S3Client]

BUCKET = "a-bucket"

_BASE_CONFIG = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


@pytest.fixture
def store(home: Home) -> Iterator[ObjectStore]:
    store = ObjectStore(home)
    store.create_bucket(BUCKET)
    yield store
    store.close()


class S3Server:
    """HTTP server that all tests share, because its start is slower than most tests. Requests need no signature.

    Each test sets `services`.
    """

    def __init__(self) -> None:
        self.services: dict[str, AnyService] = {}
        self.server = Server(("127.0.0.1", 0), numthreads=12, shutdown_timeout=1)
        self.server.wsgi_app = self._handle
        self.server.prepare()
        self.url = f"http://127.0.0.1:{self.server.bind_addr[1]}"

    def _handle(self, environ: Any, start_response: Any) -> Any:
        gateway = Gateway([self._choose_s3, *list_operation_interceptors(self.services)])
        return gateway(environ, start_response)

    def _choose_s3(self, state: RequestState) -> None:
        state.service, state.protocol = "s3", get_protocol("rest-xml")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    s3_server = S3Server()
    thread = threading.Thread(target=s3_server.server.serve)
    thread.start()
    yield s3_server
    s3_server.server.stop()
    thread.join()


@pytest.fixture
def endpoint_url(s3_server: S3Server, store: ObjectStore) -> str:
    """Let the server use the store of this test; return the URL of the server."""
    s3_server.services = {"s3": S3(store, REGION)}
    return s3_server.url


@pytest.fixture(scope="session")
def make_client(s3_server: S3Server) -> Iterator["MakeClient"]:
    """Return a function that creates a client with its own connections."""
    session = boto3.Session("anybody", "anything", region_name=REGION)
    clients: list[S3Client] = []

    def make(config: Config | None) -> "S3Client":
        clients.append(session.client("s3", endpoint_url=s3_server.url, config=_BASE_CONFIG.merge(config or Config())))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def client(make_client: "MakeClient") -> "S3Client":
    """Return the client that all tests share."""
    return make_client(None)


@pytest.fixture
def s3(client: "S3Client", endpoint_url: str) -> "S3Client":
    """Return the shared client. The server uses the store of this test."""
    assert client.meta.endpoint_url == endpoint_url
    return client
