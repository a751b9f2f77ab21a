"""Tests of pulls from a registry with logins: docker's settings, credential helpers, and ECR."""

import base64
import contextlib
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.stub import Stubber
from docker.errors import APIError, ImageNotFound
from moto import mock_aws

from microjobs_orchestrator import registry_logins
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.runtimes.docker import images
from microjobs_orchestrator.local.runtimes.docker.pulling import pull
from tests.local.machine import open_engine
from tests.push import tiny_image
from tests.registry import PASSWORD, LocalRegistry, run_registry

WriteSettings = Callable[[dict[str, Any]], object]

ECR_HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
ECR_IMAGE = f"{ECR_HOST}/mine:1"


@pytest.fixture
def write_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteSettings:
    """A function that writes docker's settings. Without a call, the user has no settings. The user has no AWS
    credentials."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "missing"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return lambda content: (tmp_path / "config.json").write_text(json.dumps(content))


def install_helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Install the credential helper `test`."""
    helper = folder / "docker-credential-test"
    helper.write_text(f"#!/bin/sh\n{script}\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    with run_registry(tmp_path_factory.mktemp("registry") / "files") as registry:
        yield registry


@pytest.fixture
def pushed_image(registry: LocalRegistry) -> Iterator[str]:
    """The name of an image that only the registry has."""
    name = f"{registry.host}/{secrets.token_hex(4)}:1"
    tiny_image.load(name, [secrets.token_bytes(64)], "")
    with open_engine() as engine:
        list(engine.api.push(name, stream=True, auth_config={"username": "anna", "password": PASSWORD}))
        engine.images.remove(name)
        try:
            yield name
        finally:
            with contextlib.suppress(ImageNotFound):
                engine.images.remove(name)


def prepare_image(name: str) -> None:
    with open_engine() as engine:
        images.prepare(engine, name)
        engine.images.get(name)


def encode_login(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.engine
@pytest.mark.parametrize("key", ["credHelpers", "credsStore", "auths"])
def test_login_of_docker_is_used_as_soon_as_it_exists(
    key: str,
    registry: LocalRegistry,
    pushed_image: str,
    write_settings: WriteSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = json.dumps({"ServerURL": registry.host, "Username": "anna", "Secret": PASSWORD})
    install_helper(tmp_path, monkeypatch, f"[ \"$(cat)\" = {registry.host} ] && echo '{answer}'")
    values = {"auths": {registry.host: encode_login("anna", PASSWORD)}, "credsStore": "test"}
    values["credHelpers"] = {registry.host: "test"}
    with open_engine() as engine:
        with pytest.raises(CannotRunError, match=rf"\(without a login: .*\): .*`docker login {registry.host}`"):
            images.prepare(engine, pushed_image)
        write_settings({key: values[key]})
        images.prepare(engine, pushed_image)
        engine.images.get(pushed_image)


@pytest.mark.engine
def test_refused_login_is_reported(registry: LocalRegistry, pushed_image: str, write_settings: WriteSettings) -> None:
    write_settings({"auths": {registry.host: encode_login("anna", "wrong secret")}})
    with pytest.raises(CannotRunError, match=r"\(with the login of `docker login`: [^;]*\): ") as caught:
        prepare_image(pushed_image)
    assert "wrong secret" not in str(caught.value)


@pytest.mark.engine
def test_token_of_ecr_is_used_if_the_login_of_docker_is_refused(
    registry: LocalRegistry,
    pushed_image: str,
    write_settings: WriteSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_settings({"auths": {registry.host: encode_login("AWS", "expired")}})
    client = boto3.client("ecr", "eu-west-1", aws_access_key_id="testing", aws_secret_access_key="testing")  # noqa: S106
    token = base64.b64encode(f"AWS:{PASSWORD}".encode()).decode()
    regions = []

    def connect(region: str, **_: Any) -> Any:
        regions.append(region)
        return client

    monkeypatch.setattr(registry_logins, "parse_ecr_region", {registry.host: "eu-west-1"}.get)
    monkeypatch.setattr(registry_logins, "connect_to_ecr", connect)
    with Stubber(client) as stub:
        login = {"authorizationToken": token, "proxyEndpoint": f"https://{ECR_HOST}"}
        stub.add_response("get_authorization_token", {"authorizationData": [login]}, {})
        prepare_image(pushed_image)
    assert regions == ["eu-west-1"]


class SlowRegistry(BaseHTTPRequestHandler):
    """A registry with one image, whose layer it sends slowly."""

    protocol_version = "HTTP/1.1"
    CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    LAYER_BYTES = 100_000_000
    CHUNK = bytes(100_000)
    layer_began = threading.Event()
    connection_closed = threading.Event()

    def do_GET(self) -> None:
        content = self._find_content()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
        self.send_header("Content-Length", str(self.LAYER_BYTES if content is None else len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if content is not None:
            self.wfile.write(content)
            return
        with contextlib.suppress(OSError):
            for _ in range(self.LAYER_BYTES // len(self.CHUNK)):
                self.wfile.write(self.CHUNK)
                self.layer_began.set()
                time.sleep(0.02)
        self.connection_closed.set()

    do_HEAD = do_GET  # noqa: N815  a name that http.server calls

    def _find_content(self) -> bytes | None:
        """Return the content of the requested object; None for the layer."""
        config_digest = f"sha256:{hashlib.sha256(self.CONFIG).hexdigest()}"
        layer_type, config_type = "image.rootfs.diff.tar", "container.image.v1+json"
        media_type = "application/vnd.docker.{}".format
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type("distribution.manifest.v2+json"),
            "config": {"mediaType": media_type(config_type), "size": len(self.CONFIG), "digest": config_digest},
            "layers": [{"mediaType": media_type(layer_type), "size": self.LAYER_BYTES, "digest": f"sha256:{'0' * 64}"}],
        }
        if self.path.endswith(config_digest):
            return self.CONFIG
        if "/manifests/" in self.path:
            return json.dumps(manifest).encode()
        return None if "/blobs/" in self.path else b"{}"

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.engine
@pytest.mark.usefixtures("write_settings")
def test_stop_ends_a_pull() -> None:
    server, stopped = ThreadingHTTPServer(("127.0.0.1", 0), SlowRegistry), threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with open_engine() as engine, ThreadPoolExecutor(1) as pool:
            pull_result = pool.submit(images.prepare, engine, f"127.0.0.1:{server.server_port}/slow:1", stopped)
            assert SlowRegistry.layer_began.wait(60), pull_result
            assert not pull_result.done()
            stopped.set()
            with pytest.raises(CannotRunError, match=r"the pull of image 127.0.0.1:\d+/slow:1 was stopped"):
                pull_result.result(10)
            assert SlowRegistry.connection_closed.wait(10)
    finally:
        server.shutdown()
        server.server_close()


class FakeEngine:
    """An engine that records the logins of pulls. If `error` is not empty, the engine refuses each pull with this
    text."""

    def __init__(self, *events: dict[str, str], error: str = "") -> None:
        self.logins: list[dict[str, str]] = []
        self._events = events
        self._error = error
        self.api = SimpleNamespace(pull=self._pull)
        self.images = SimpleNamespace(get=lambda name: name)

    def _pull(self, _: str, *, auth_config: dict[str, str], **__: Any) -> Iterator[dict[str, str]]:
        self.logins.append(auth_config)
        if self._error:
            raise APIError("refused", explanation=self._error)
        return iter(self._events)

    def pull(self, name: str) -> Any:
        return pull(cast("Any", self), name, "remedy")


@pytest.mark.usefixtures("write_settings")
def test_image_of_ecr_is_pulled_with_a_token_for_the_users_aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    engine = FakeEngine({"status": "Pulling"})
    with mock_aws():
        assert engine.pull(ECR_IMAGE) == ECR_IMAGE
    assert [login["username"] for login in engine.logins] == ["AWS"]


@pytest.mark.usefixtures("write_settings")
def test_missing_aws_credentials_are_reported_and_the_image_is_pulled_without_a_login() -> None:
    engine = FakeEngine(error="no basic auth credentials")
    with pytest.raises(CannotRunError) as caught:
        engine.pull(ECR_IMAGE)
    assert engine.logins == [{}]
    assert str(caught.value) == (
        f"image {ECR_IMAGE} is not on this machine and cannot be pulled (with a token of ECR for the server's AWS "
        "credentials: Unable to locate credentials; without a login: no basic auth credentials): remedy"
    )


@pytest.mark.usefixtures("write_settings")
def test_token_is_not_requested_from_the_local_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4577")
    with pytest.raises(CannotRunError, match=r"AWS_ENDPOINT_URL names http://127\.0\.0\.1:4577, which is not AWS"):
        FakeEngine(error="denied").pull(ECR_IMAGE)


def test_failing_credential_helper_is_reported(
    write_settings: WriteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_helper(tmp_path, monkeypatch, "echo locked; exit 1")
    write_settings({"credsStore": "test"})
    with pytest.raises(CannotRunError, match=r"with the login of `docker login`: .*locked.*; without a login: denied"):
        FakeEngine(error="denied").pull("example.com/mine:1")


@pytest.mark.usefixtures("write_settings")
def test_error_in_the_events_of_a_pull_is_reported() -> None:
    """Podman answers each pull with status 200, also if the pull fails later."""
    with pytest.raises(CannotRunError, match="without a login: the disk is full"):
        FakeEngine({"status": "Pulling"}, {"error": "the disk is full"}).pull("example.com/mine:1")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("mine:1", "(`docker login`)"),
        ("example.com:5000/mine:1", "(`docker login example.com:5000`)"),
        (ECR_IMAGE, f"--region eu-west-1 | docker login --username AWS --password-stdin {ECR_HOST}`"),
    ],
)
def test_remedy_names_the_registry(name: str, command: str) -> None:
    assert command in images.make_missing_image_remedy(name)
