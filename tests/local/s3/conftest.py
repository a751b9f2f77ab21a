"""S3 alone behind a real HTTP server, and boto3 as its client."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from cheroot.wsgi import Server
from werkzeug import Request, Response

from orchestrator.local.errors import ServiceError
from orchestrator.local.home import Home
from orchestrator.local.s3.service import S3, error_response
from orchestrator.local.s3.store import ObjectStore
from orchestrator.local.s3.wire import Gateway

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    Connect = Callable[[Config | None], S3Client]

BUCKET = "a-bucket"

_ONCE = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture
def store(home: Home) -> Iterator[ObjectStore]:
    store = ObjectStore(home)
    store.create_bucket(BUCKET)
    yield store
    store.close()


@pytest.fixture
def endpoint(store: ObjectStore) -> Iterator[str]:
    s3 = S3(store, "us-east-1")

    @Request.application
    def app(request: Request) -> Response:
        try:
            return s3(request)
        except ServiceError as error:
            return error_response(error, request)

    server = Server(("127.0.0.1", 0), app, numthreads=12)
    server.gateway = Gateway
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield f"http://127.0.0.1:{server.bind_addr[1]}"
    server.stop()
    thread.join()


@pytest.fixture
def connect(endpoint: str) -> Iterator["Connect"]:
    """Makes clients, which share nothing."""
    clients: list[S3Client] = []

    def connect(config: Config | None) -> "S3Client":
        session = boto3.Session("anybody", "anything", region_name="us-east-1")
        client = session.client("s3", endpoint_url=endpoint, config=_ONCE.merge(config or Config()))
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def s3(connect: "Connect") -> "S3Client":
    return connect(None)
