"""Tests of the proxies and certificates that jobs get from the server's settings and from docker's settings."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator.local import config
from microjobs_orchestrator.local.certificates import make_certificate
from microjobs_orchestrator.local.config import Config, ConfigError
from microjobs_orchestrator.local.lifecycle.attempt import Attempt, prepare_plan
from microjobs_orchestrator.local.lifecycle.events import EventQueue
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.network_settings import (
    CA_BUNDLE_NAME,
    CA_BUNDLE_VARIABLES,
    NetworkSettings,
    read_ca_bundle,
    read_docker_proxies,
)
from microjobs_orchestrator.local.runtimes.base import HostPlan, Plan
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from tests.conftest import make_image_name
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour
from tests.local.runtimes.processes import (
    make_home,
    make_program_plan,
    make_tiny_repository,
    make_tiny_runtime,
    read_output,
)

PROXY = "http://proxy.example.com:3128"
SETTINGS = NetworkSettings({"http": PROXY, "no": ".example.com"}, b"certificates")

REQUEST_CODE = """
import sys, urllib.request
for url in sys.argv[1:]:
    print(urllib.request.urlopen(url, timeout=20).read().decode())
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates") / "ca.pem"
    path.write_bytes(make_certificate("ca")[0])
    return path


def prepare_host(
    parts: ServerParts, folder: Path, network: NetworkSettings, *, is_isolated: bool = False, **variables: str
) -> HostPlan:
    """Return the first host of a prepared plan with two hosts."""
    context = replace(parts.context, settings=replace(parts.context.settings, url="http://172.17.0.1:4577"))
    context = replace(context, settings=replace(context.settings, network=network))
    parts.runtime.behaviours["model"] = ImageBehaviour()
    hosts = tuple(HostPlan(name, "model", folder / name, environment=variables) for name in ("algo-1", "algo-2"))
    for host in hosts:
        host.files.mkdir()
    attempt = Attempt(
        "job/a",
        "model",
        make_plan=lambda _: Plan("job/a", hosts, is_isolated),
        open_stream=lambda name: LogStream(folder / name),
    )
    return prepare_plan(context, attempt, EventQueue()).hosts[0]


def test_jobs_get_proxies_but_reach_the_server_and_each_other(parts: ServerParts, tmp_path: Path) -> None:
    host = prepare_host(parts, tmp_path, SETTINGS)
    assert host.default_variables["http_proxy"] == host.default_variables["HTTP_PROXY"] == PROXY
    assert "https_proxy" not in host.default_variables
    no_proxy = host.default_variables["NO_PROXY"].split(",")
    assert no_proxy == [".example.com", "localhost", "127.0.0.1", "127.0.0.0/8", "172.17.0.1", "algo-1", "algo-2"]
    assert {host.default_variables[name] for name in CA_BUNDLE_VARIABLES} == {f"{DEFAULT_ROOT}/{CA_BUNDLE_NAME}"}
    assert (host.files / CA_BUNDLE_NAME).read_bytes() == b"certificates"


def test_isolated_jobs_get_no_proxies_and_certificates(parts: ServerParts, tmp_path: Path) -> None:
    host = prepare_host(parts, tmp_path, SETTINGS, is_isolated=True)
    assert not host.default_variables
    assert not (host.files / CA_BUNDLE_NAME).exists()


def test_jobs_get_no_variables_without_settings(parts: ServerParts, tmp_path: Path) -> None:
    assert not prepare_host(parts, tmp_path, NetworkSettings()).default_variables


def test_variables_of_the_request_and_of_the_image_have_priority(parts: ServerParts, tmp_path: Path) -> None:
    """If the name of a default variable differed only in upper and lower case, some programs would read the default."""
    host = prepare_host(parts, tmp_path, SETTINGS, HTTP_PROXY="http://mine:1", SSL_CERT_FILE="/mine.pem")
    variables = host.merge_variables(image_variables={"no_proxy": "", "PIP_CERT": ""})
    assert variables.items() >= {"HTTP_PROXY": "http://mine:1", "SSL_CERT_FILE": "/mine.pem"}.items()
    assert variables.keys().isdisjoint(["http_proxy", "no_proxy", "NO_PROXY", "PIP_CERT"])


def test_server_is_reachable_if_only_the_request_has_a_proxy(parts: ServerParts, tmp_path: Path) -> None:
    host = prepare_host(parts, tmp_path, NetworkSettings(), https_proxy=PROXY)
    assert host.default_variables.keys() == {"no_proxy", "NO_PROXY"}
    assert "172.17.0.1" in host.default_variables["no_proxy"].split(",")


@contextmanager
def run_web_server(body: str) -> Iterator[tuple[str, list[str]]]:
    """Run a web server or a proxy. Yield its address and the targets of its requests."""
    targets: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            targets.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", targets
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_process_uses_the_proxy_for_other_machines_only(tmp_path: Path) -> None:
    make_tiny_repository(tmp_path, "")
    runtime = make_tiny_runtime(tmp_path)
    with run_web_server("from the proxy") as (proxy, targets), run_web_server("from the server") as (server, _):
        variables = NetworkSettings({"http": proxy}).make_variables([], ["127.0.0.1"])
        host = make_program_plan(
            tmp_path, REQUEST_CODE, f"{server}/a", "http://elsewhere.invalid/b", default_variables=variables
        )
        (running_host,) = runtime.start(Plan("job/a", (host,)))
        assert (read_output(running_host).split("\n"), running_host.wait().code) == (
            ["from the server", "from the proxy"],
            0,
        )
    runtime.remove("job/a")
    runtime.close()
    assert targets == ["http://elsewhere.invalid/b"]


def test_process_can_read_the_certificates(tmp_path: Path, certificate: Path) -> None:
    code = "import os, ssl; print(os.environ['PIP_CERT'], len(ssl.create_default_context().get_ca_certs()))"
    make_tiny_repository(tmp_path, f"def process(_): {code}")
    runtime = make_tiny_runtime(tmp_path)
    settings = NetworkSettings(ca_bundle=certificate.read_bytes())
    code_plan = make_program_plan(tmp_path, code, default_variables=settings.make_variables([], []))
    job_plan = replace(code_plan, name="algo-2", entrypoint=None, arguments=())
    settings.write_files(code_plan.files)
    for number, host in enumerate((code_plan, job_plan)):
        (running_host,) = runtime.start(Plan(f"job/{number}", (host,)))
        path, count = read_output(running_host).split()
        # the path is valid even without a mount namespace
        assert (Path(path).read_bytes(), count) == (certificate.read_bytes(), "1")
        runtime.remove(f"job/{number}")
    runtime.close()


@pytest.mark.engine
@pytest.mark.parametrize("is_isolated", [False, True])
def test_container_gets_only_the_proxies_of_its_plan(
    is_isolated: bool, tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Docker SDK would give the proxies of docker's settings to each container, also to guards."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": {"httpsProxy": "http://docker:1"}}}))
    network = NetworkSettings({"http": PROXY}, certificate.read_bytes())
    files = tmp_path / "files"
    files.mkdir()
    network.write_files(files)
    script = 'env | grep -i _proxy= | sort; grep -c BEGIN "$SSL_CERT_FILE"'
    host = HostPlan(
        "algo-1",
        make_image_name("serve"),
        files,
        entrypoint=("/bin/sh", "-c"),
        arguments=(script,),
        default_variables=network.make_variables([], []),
    )
    runtime = DockerRuntime(make_home(tmp_path / "home"), docker.from_env())
    plan = Plan("job/a", (host,), is_isolated)
    try:
        (running_host,) = runtime.start(plan)
        lines = [line.text.decode() for line in running_host.lines()]
    finally:
        runtime.remove("job/a")
        runtime.close()
    no_proxy = "localhost,127.0.0.1,127.0.0.0/8"
    expected = [f"HTTP_PROXY={PROXY}", f"NO_PROXY={no_proxy}", f"http_proxy={PROXY}", f"no_proxy={no_proxy}", "1"]
    assert sorted(lines) == sorted(expected)


def test_proxies_of_an_engine_replace_the_default_proxies_of_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert read_docker_proxies("unix:///var/run/docker.sock") == {}
    default = {"httpProxy": PROXY, "noProxy": ".example.com", "ftpProxy": "http://ftp"}
    proxies: Mapping[str, Any] = {"default": default, "tcp://far:2376": {"httpsProxy": PROXY}}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    assert read_docker_proxies("unix:///var/run/docker.sock") == {"http": PROXY, "no": ".example.com"}
    assert read_docker_proxies("tcp://far:2376") == {"https": PROXY}


def test_flags_add_to_the_proxies_of_the_file(tmp_path: Path, certificate: Path) -> None:
    from microjobs_orchestrator.cli import make_parser

    path = tmp_path / "microjobs.toml"
    path.write_text(f'[local]\nca_bundle = "{certificate}"\n[local.proxies]\nhttp = "{PROXY}"\n')
    settings = config.merge_flags(config.load(path), proxies={"no": "a,b"})
    assert settings == Config(proxies={"http": PROXY, "no": "a,b"}, ca_bundle=str(certificate))
    options = make_parser().parse_args(["local", "up", *settings.to_flags()])
    assert (dict(options.proxy), options.ca_bundle) == (settings.proxies, str(certificate))
    assert read_ca_bundle(settings.ca_bundle) == certificate.read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"proxies": {"ftp": PROXY}}, r"has no setting 'ftp'; the settings are http, https, all, no"),
        ({"proxies": {"http": "proxy:3128"}}, "http must be an address such as .* not 'proxy:3128'"),
        ({"proxies": {"https": "http://anna:secret@proxy:3128"}}, "without a user and a password .* not 'http://proxy"),
        ({"ca_bundle": "/nowhere.pem"}, r"ca_bundle /nowhere\.pem must be a file with certificates in PEM: No such"),
        ({"ca_bundle": __file__}, "must be a file with certificates in PEM"),
    ],
)
def test_invalid_network_settings_are_reported(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config.merge_flags(Config(), **settings)
    assert "secret" not in str(caught.value)
