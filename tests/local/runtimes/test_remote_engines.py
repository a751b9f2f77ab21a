"""Tests of engines behind SSH and TLS: the engine of this machine, behind a program `ssh` or a TLS proxy."""

import asyncio
import contextlib
import datetime
import hashlib
import ipaddress
import queue
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from docker import DockerClient
from docker.errors import DockerException

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator import docker_engine
from microjobs_orchestrator.doctor import machine
from microjobs_orchestrator.local.runtimes.base import HostPlan, Input, Pipe, Plan
from microjobs_orchestrator.local.runtimes.docker import container_pipes
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from microjobs_orchestrator.local.runtimes.docker.tunnel import open_tunnel
from microjobs_orchestrator.ssh_engine import SshError, make_command
from tests.conftest import make_image_name
from tests.local.drills.proxy import ENGINE_SOCKET
from tests.local.machine import list_containers
from tests.local.runtimes.processes import make_home
from tests.local.trees import write_tree

LOOPBACK = "127.0.0.1"
TIMEOUT_SECONDS = 60.0
CHUNK_BYTES = 1 << 16
PIPE_CONTENT = [b"pipe" * 25_000] * 3
SCRIPT = f"cat {DEFAULT_ROOT}/x/name > {DEFAULT_ROOT}/out; wc -c < {DEFAULT_ROOT}/p_0; echo ready; sleep 600"


def check_engine(client: DockerClient, folder: Path) -> None:
    """Run a host with an input, a pipe and an output. Send data to a command in its container, and read its output."""
    home = make_home(folder / "home")
    runtime = DockerRuntime(home, client)
    files, data = folder / "files", folder / "data"
    for new_folder in (files, data):
        new_folder.mkdir()
    (data / "name").write_text("input")
    host = HostPlan(
        "algo-1",
        make_image_name("serve"),
        files,
        inputs=(Input(f"{DEFAULT_ROOT}/x", data),),
        pipes=(Pipe(f"{DEFAULT_ROOT}/p", lambda _: iter(PIPE_CONTENT)),),
        entrypoint=("/bin/sh", "-c"),
        arguments=(SCRIPT,),
    )
    try:
        (running_host,) = runtime.start(Plan("job/a", (host,)))
        lines = running_host.lines()
        assert [next(lines).text.strip() for _ in range(2)] == [b"300000", b"ready"]
        tree = running_host.copy(f"{DEFAULT_ROOT}/out", folder / "copy")
        assert tree is not None
        write_tree(tree, folder / "out")
        assert (folder / "out" / "out").read_text() == "input"
        (container,) = list_containers(home)
        container.client = client
        with open_tunnel(container, ["cat"]) as tunnel:
            tunnel.settimeout(30)
            tunnel.sendall(b"through the tunnel")
            assert tunnel.recv(100) == b"through the tunnel"
        running_host.stop(0)
        assert (list(lines), running_host.wait().code) == ([], 137)
    finally:
        runtime.remove("job/a")
        runtime.close()


# --- SSH ---


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a program `ssh` that runs the command on this machine. Return the file to which it adds its arguments."""
    folder, log = tmp_path / "bin", tmp_path / "ssh.log"
    folder.mkdir()
    program = folder / "ssh"
    # ssh sends the command as one text, and the shell of the other machine splits it. This program does the same.
    program.write_text(
        f'#!/bin/sh\necho "$*" >> {shlex.quote(str(log))}\n'
        'while [ "$1" != -- ]; do shift; done\nshift 2\nunset DOCKER_HOST\nexec sh -c "$*"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return log


@pytest.mark.engine
def test_engine_is_used_over_ssh(fake_ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", address := "ssh://anna@far.example.com:2222")
    client = docker_engine.connect()
    socket_path = Path(client.api.get_adapter(client.api.base_url).socket_path)  # type: ignore[attr-defined]
    assert socket_path.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("DOCKER_HOST")  # the test's other clients use the engine directly
    check_engine(client, tmp_path)
    options = "-T -o BatchMode=yes -o ConnectTimeout=60 -o ServerAliveInterval=15 -l anna -p 2222"
    assert set(fake_ssh.read_text().splitlines()) == {f"{options} -- far.example.com docker system dial-stdio"}
    assert not socket_path.parent.exists()
    with contextlib.closing(docker_engine.connect(environ={"DOCKER_HOST": f"{address}{ENGINE_SOCKET}"})):
        assert fake_ssh.read_text().endswith(
            f"far.example.com docker --host unix://{ENGINE_SOCKET} system dial-stdio\n"
        )


def test_unreachable_engine_raises_with_the_error_of_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\necho 'anna@far: Permission denied (publickey).' >&2; exit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    environ = {"DOCKER_HOST": "ssh://anna@far"}
    with pytest.raises(DockerException, match=r"Permission denied \(publickey\).* -- far docker system dial-stdio"):
        docker_engine.connect(environ=environ)
    (finding,) = machine.check_engine(environ)
    assert "Permission denied (publickey)" in finding.message
    assert "let ssh log in with a key" in finding.remedy


@pytest.mark.parametrize("address", ["ssh://", "ssh://anna:secret@far", "ssh://far:port", "ssh://far?x=1"])
def test_invalid_address_of_ssh_raises(address: str) -> None:
    with pytest.raises(SshError):
        make_command(address, 1)


def test_path_is_quoted_for_the_shell_of_the_other_machine() -> None:
    assert make_command("ssh://far/run/$(id)/docker.sock", 1)[-5:] == [
        *("docker", "--host", "unix://'/run/$(id)/docker.sock'"),
        *("system", "dial-stdio"),
    ]


# --- TLS and contexts ---


class Authority:
    """A certificate authority in a folder, with one certificate for the engine and one for its client."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.file = folder / "ca.pem"
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        constraints = x509.BasicConstraints(True, None)
        builder = self._builder("authority", self._key).add_extension(constraints, critical=True)
        self.file.write_bytes(self._sign(builder))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a new certificate for this machine, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
        files = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        files[0].write_bytes(self._sign(self._builder(name, key).add_extension(address, critical=False)))
        encryption = serialization.NoEncryption()
        private_format = serialization.PrivateFormat.PKCS8
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private_format, encryption))
        return files

    def _builder(self, name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        return x509.CertificateBuilder(
            self._name,
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            key.public_key(),
            x509.random_serial_number(),
            now - day,
            now + day,
        )

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@contextlib.contextmanager
def run_tls_proxy(authority: Authority) -> Iterator[int]:
    """Run a proxy in front of the engine; yield its port. The proxy asks clients for a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.load_cert_chain(*authority.issue("engine"))
    context.verify_mode = ssl.CERT_REQUIRED
    start_queue: queue.Queue[tuple[int, Callable[[], object]]] = queue.Queue()

    async def serve() -> None:
        tasks: set[asyncio.Task[None]] = set()  # asyncio alone does not keep tasks whose client has disconnected

        def start_forwarding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.create_task(forward(reader, writer)))

        server = await asyncio.start_server(start_forwarding, LOOPBACK, 0, ssl=context)
        stop_event = asyncio.Event()
        loop = asyncio.get_running_loop()
        start_queue.put((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stop_event.set)))
        await stop_event.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, stop = start_queue.get(timeout=30)
    try:
        yield port
    finally:
        stop()
        thread.join()


async def forward(client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
    reader, writer = await asyncio.open_unix_connection(ENGINE_SOCKET)
    try:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(copy(client_reader, writer), copy(reader, client_writer))
            client_writer.close()
            await client_writer.wait_closed()
    finally:
        for open_writer in (writer, client_writer):
            open_writer.transport.abort()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


def create_context(folder: Path, address: str, authority: Authority) -> None:
    """Create and use a context, with the files that `docker context create` writes."""
    certificate, key = authority.issue("client")
    description = f"host={address},ca={authority.file},cert={certificate},key={key}"
    for command in (("create", "far", "--docker", description), ("use", "far")):
        subprocess.run(["docker", "--config", str(folder), "context", *command], check=True, capture_output=True)
    assert (folder / "contexts/meta" / hashlib.sha256(b"far").hexdigest() / "meta.json").exists()


@pytest.mark.engine
def test_engine_of_a_context_is_used_over_tls(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    with run_tls_proxy(authority) as port:
        address = f"tcp://{LOOPBACK}:{port}"
        create_context(tmp_path / "docker", address, authority)
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
        assert docker_engine.find_address({}) == address
        client = docker_engine.connect(environ={"HOME": str(tmp_path)})
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))  # the test's other clients use the engine directly
        assert client.api.base_url == f"https://{LOOPBACK}:{port}"
        check_engine(client, tmp_path)


@pytest.mark.engine
@pytest.mark.parametrize("is_trusted", [True, False])
def test_engine_of_docker_host_is_used_over_tls(authority: Authority, tmp_path: Path, is_trusted: bool) -> None:
    folder = tmp_path / "client"
    folder.mkdir()
    client_authority = authority if is_trusted else Authority(tmp_path / "other")
    client_files = (client_authority.file, *client_authority.issue("client"))
    for source, name in zip(client_files, ("ca.pem", "cert.pem", "key.pem"), strict=True):
        shutil.copy(source, folder / name)
    with run_tls_proxy(authority) as port:
        variables = {"DOCKER_HOST": f"tcp://{LOOPBACK}:{port}", "DOCKER_CERT_PATH": str(folder)}
        environ = {**variables, "DOCKER_TLS_VERIFY": "1"}
        if not is_trusted:
            with pytest.raises(DockerException, match="CERTIFICATE_VERIFY_FAILED"):
                docker_engine.connect(environ=environ)
            return
        check_engine(docker_engine.connect(environ=environ), tmp_path)


def test_end_input_sends_close_notify_over_tls(authority: Authority) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("engine"))
    received_bytes = bytearray()

    def answer() -> None:
        connection, _ = listener.accept()
        connection.settimeout(TIMEOUT_SECONDS)
        with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as stream:
            # this call raises SSLEOFError if the client closes the connection without close_notify
            while chunk := stream.recv(CHUNK_BYTES):
                received_bytes.extend(chunk)

    with socket.create_server((LOOPBACK, 0)) as listener, ThreadPoolExecutor() as pool:
        answer_future = pool.submit(answer)
        client = ssl.create_default_context(cafile=authority.file)
        connection = socket.create_connection(listener.getsockname(), TIMEOUT_SECONDS)
        with client.wrap_socket(connection, server_hostname=LOOPBACK) as stream:
            stream.sendall(b"input")
            stream.setblocking(False)
            container_pipes.end_input(stream)
        answer_future.result(30)
    assert received_bytes == b"input"
