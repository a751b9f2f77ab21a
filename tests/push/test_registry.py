"""Tests of the client of a registry's HTTP API, with a fake server, and of the login that it reads."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from microjobs_orchestrator.failures import CommandError, UsageError
from microjobs_orchestrator.push.destination import Destination
from microjobs_orchestrator.push.login import PASSWORD_VARIABLE, USER_VARIABLE, read_login
from microjobs_orchestrator.push.push import find_manifest
from microjobs_orchestrator.push.registry import Manifest, Registry, is_loopback
from microjobs_orchestrator.push.tags import TaggedImage
from microjobs_orchestrator.registry_logins import RegistryLogin
from tests.push.conftest import make_image

PASSWORD_LOGIN = RegistryLogin("anna", "secret")
TOKEN_LOGIN = RegistryLogin(identity_token="long")  # noqa: S106
BASIC_HEADER = "Basic " + base64.b64encode(b"anna:secret").decode()
MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST = json.dumps({"config": {"digest": "sha256:c0"}, "mediaType": MEDIA_TYPE}).encode()
EXPECTED_MANIFEST = Manifest(
    digest=f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}", config_digest="sha256:c0", media_type=MEDIA_TYPE
)

Response = tuple[int, dict[str, str], bytes]
ReceivedRequests = list[tuple[str, str]]


class FakeRegistry:
    """A registry whose responses come from the function `answer`."""

    def __init__(self, answer: "Callable[[FakeRegistry, Any, str], Response]") -> None:
        self.requests: ReceivedRequests = []
        fake_registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.respond("")

            def do_POST(self) -> None:
                self.respond(self.rfile.read(int(self.headers["Content-Length"])).decode())

            def respond(self, body: str) -> None:
                fake_registry.requests.append((self.path, self.headers.get("Authorization", "")))
                status, headers, content = answer(fake_registry, self, body)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def get_manifest(self, login: RegistryLogin | None = PASSWORD_LOGIN) -> Manifest | None:
        with closing(Registry(Destination(self.host, "team"), login)) as registry:
            return registry.get_manifest("serve", "v1")


StartRegistry = Callable[[Callable[[FakeRegistry, Any, str], Response]], FakeRegistry]


@pytest.fixture
def start_registry() -> Iterator[StartRegistry]:
    registries: list[FakeRegistry] = []

    def start_registry(answer: Callable[[FakeRegistry, Any, str], Response]) -> FakeRegistry:
        registries.append(FakeRegistry(answer))
        return registries[-1]

    yield start_registry
    for fake_registry in registries:
        fake_registry.close()


def answer_with_tokens(fake_registry: FakeRegistry, request: Any, body: str) -> Response:
    """Respond as Docker Hub and GitHub do: they require a token for the repository, which another URL issues."""
    query = parse_qs(urlsplit(request.path).query or body)
    if request.path.startswith("/token"):
        is_valid = request.headers.get("Authorization") == BASIC_HEADER or query.get("refresh_token") == ["long"]
        is_complete = query["scope"] == ["repository:team/serve:pull,push"] and query["service"] == ["registry"]
        return (200, {}, b'{"token": "short"}') if is_valid and is_complete else (401, {}, b"")
    if request.headers.get("Authorization") == "Bearer short":
        return 200, {}, MANIFEST
    challenge = (
        f'Bearer realm="http://{fake_registry.host}/token",service="registry",scope="repository:team/serve:pull"'
    )
    return 401, {"WWW-Authenticate": challenge}, b""


def test_missing_tag_has_no_manifest(start_registry: StartRegistry) -> None:
    fake_registry = start_registry(lambda *_: (404, {}, b"{}"))
    assert fake_registry.get_manifest() is None
    assert fake_registry.requests == [("/v2/team/serve/manifests/v1", "")]


def test_digest_is_computed_from_the_content(start_registry: StartRegistry) -> None:
    assert start_registry(lambda *_: (200, {}, MANIFEST)).get_manifest() == EXPECTED_MANIFEST


def test_password_is_sent_after_a_basic_challenge(start_registry: StartRegistry) -> None:
    def answer_with_password(_: FakeRegistry, request: Any, __: str) -> Response:
        is_valid = request.headers.get("Authorization") == BASIC_HEADER
        return (200, {}, MANIFEST) if is_valid else (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")

    assert start_registry(answer_with_password).get_manifest() == EXPECTED_MANIFEST


@pytest.mark.parametrize("login", [PASSWORD_LOGIN, TOKEN_LOGIN], ids=["password", "identity token"])
def test_token_is_fetched_after_a_bearer_challenge(start_registry: StartRegistry, login: RegistryLogin) -> None:
    fake_registry = start_registry(answer_with_tokens)
    assert fake_registry.get_manifest(login) == EXPECTED_MANIFEST


def test_error_for_a_missing_login_names_the_remedy(start_registry: StartRegistry) -> None:
    fake_registry = start_registry(answer_with_tokens)
    with pytest.raises(
        CommandError, match=rf"401 Unauthorized .*`docker login {fake_registry.host}`, or set MICROJOBS_"
    ):
        fake_registry.get_manifest(None)


def test_password_is_not_sent_over_plain_http(start_registry: StartRegistry) -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://elsewhere.example.com/token"'}
    fake_registry = start_registry(lambda *_: (401, challenge, b""))
    with pytest.raises(CommandError, match="which is not an https address: no login was sent"):
        fake_registry.get_manifest()


@pytest.mark.parametrize(
    ("status", "message"), [(503, "503 Service Unavailable"), (200, "does not respond like a registry")]
)
def test_invalid_response_raises(start_registry: StartRegistry, status: int, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        start_registry(lambda *_: (status, {}, b"<html>")).get_manifest()


def test_unreachable_registry_raises() -> None:
    with (
        closing(Registry(Destination("127.0.0.1:1"), None)) as registry,
        pytest.raises(CommandError, match="does not respond"),
    ):
        registry.get_manifest("a", "b")


def test_manifest_describes_an_image_with_either_digest() -> None:
    own_image = make_image()
    assert Manifest("sha256:other", config_digest=own_image.id, media_type="").describes(own_image)
    assert Manifest(own_image.id, config_digest="", media_type="").describes(own_image)
    assert not Manifest("sha256:other", config_digest="", media_type="").describes(own_image)


@pytest.mark.parametrize(
    ("media_type", "config", "message"),
    [
        (
            MEDIA_TYPE,
            "sha256:other",
            f"already belongs to image sha256:.*, not to {make_image().name} of this machine: tags are never",
        ),
        ("application/vnd.oci.image.manifest.v1+json", make_image().id, "which SageMaker refuses: delete that tag"),
    ],
)
def test_tag_of_another_image_or_format_raises(
    start_registry: StartRegistry, media_type: str, config: str, message: str
) -> None:
    manifest = json.dumps({"config": {"digest": config}, "mediaType": media_type}).encode()
    fake_registry = start_registry(lambda *_: (200, {}, manifest))
    with (
        closing(Registry(Destination(fake_registry.host), None)) as registry,
        pytest.raises(CommandError, match=message),
    ):
        find_manifest(registry, TaggedImage(make_image(), "v1"))


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1:5000", True),
        ("localhost", True),
        ("[::1]:5000", True),
        ("example.com", False),
        ("10.0.0.1:5000", False),
        ("127.example.com", False),
    ],
)
def test_plain_http_is_only_used_on_this_machine(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local
    with closing(Registry(Destination(host), None)) as registry:
        assert registry.base_url.startswith("http://" if is_local else "https://")
        assert registry.session.trust_env is not is_local  # requests to this machine use no proxy


def test_variables_override_the_settings_of_docker_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    auths = {
        "example.com": {"auth": BASIC_HEADER.removeprefix("Basic ")},
        "token.example.com": {"identitytoken": "long"},
    }
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    variables = {USER_VARIABLE: "otto", PASSWORD_VARIABLE: "other"}
    assert read_login("example.com", variables) == RegistryLogin("otto", "other")
    assert read_login("example.com", {}) == PASSWORD_LOGIN
    assert read_login("token.example.com", {}) == TOKEN_LOGIN
    assert read_login("unknown.example.com", {}) is None


def test_user_without_password_raises() -> None:
    with pytest.raises(UsageError, match="only MICROJOBS_REGISTRY_USER is set: also set MICROJOBS_REGISTRY_PASSWORD"):
        read_login("example.com", {USER_VARIABLE: "otto"})


def test_identity_token_replaces_user_and_password() -> None:
    assert TOKEN_LOGIN.make_auth_config() == {"identitytoken": "long"}
    assert PASSWORD_LOGIN.make_auth_config() == {"username": "anna", "password": "secret"}


def test_repr_hides_credentials() -> None:
    assert "secret" not in repr(PASSWORD_LOGIN)
    assert "long" not in repr(TOKEN_LOGIN)
