"""S3 alone behind a real HTTP server, and boto3 as its client."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from microjobs_orchestrator.local.gateway.chain import Gateway, list_operation_interceptors
from microjobs_orchestrator.local.gateway.exchange import AnyService, Exchange
from microjobs_orchestrator.local.gateway.listener import Server
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import REGION
from microjobs_orchestrator.local.protocols.protocol import get_protocol
from microjobs_orchestrator.local.s3.service import S3
from microjobs_orchestrator.local.s3.store import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    Connect = Callable[[Config | None], S3Client]

BUCKET = "a-bucket"

_ONCE = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})


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


class Running:
    """One server for all tests, as starting one takes longer than most of them; each gives it a store. Requests need
    no signature."""

    def __init__(self) -> None:
        self.services: dict[str, AnyService] = {}
        self.server = Server(("127.0.0.1", 0), numthreads=12, shutdown_timeout=1)
        self.server.wsgi_app = self._answer
        self.server.prepare()
        self.url = f"http://127.0.0.1:{self.server.bind_addr[1]}"

    def _answer(self, environ: Any, start_response: Any) -> Any:
        gateway = Gateway([self._choose_s3, *list_operation_interceptors(self.services)])
        return gateway(environ, start_response)

    def _choose_s3(self, exchange: Exchange) -> None:
        exchange.service, exchange.protocol = "s3", get_protocol("rest-xml")


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    running = Running()
    thread = threading.Thread(target=running.server.serve)
    thread.start()
    yield running
    running.server.stop()
    thread.join()


@pytest.fixture
def endpoint(running: Running, store: ObjectStore) -> str:
    running.services = {"s3": S3(store, REGION)}
    return running.url


@pytest.fixture(scope="session")
def connect(running: Running) -> Iterator["Connect"]:
    """Makes clients, which share nothing."""
    session = boto3.Session("anybody", "anything", region_name=REGION)
    clients: list[S3Client] = []

    def connect(config: Config | None) -> "S3Client":
        clients.append(session.client("s3", endpoint_url=running.url, config=_ONCE.merge(config or Config())))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def client(connect: "Connect") -> "S3Client":
    return connect(None)


@pytest.fixture
def s3(client: "S3Client", endpoint: str) -> "S3Client":
    assert client.meta.endpoint_url == endpoint
    return client
