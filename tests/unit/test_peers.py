"""Connections between the hosts of a job, with attacks on a real listener by callers without the secret."""

import contextlib
import re
import secrets
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from microjobs import peers
from microjobs.peers import (
    CHALLENGE_BYTES,
    HELLO_BYTES,
    MAC_BYTES,
    NONCE_BYTES,
    Connection,
    PeerListener,
    UntrustedError,
)
from tests.conftest import REPOSITORY

SECRET, OTHER_SECRET = b"s" * 64, b"o" * 64
HOST = "algo-2"
Address = tuple[str, int]


@dataclass
class FirstHost:
    """A listener in a thread, like that of the first host of a job."""

    address: Address
    peer_listener: PeerListener
    admitted_hosts: dict[str, Connection] = field(default_factory=dict)
    max_pending: int = 0
    _is_ended: threading.Event = field(default_factory=threading.Event)

    def admit_hosts(self) -> None:
        while not self._is_ended.is_set():
            for host, connection in self.peer_listener.admit(0.05):
                connection.set_blocking(True)
                self.admitted_hosts[host] = connection
            self.max_pending = max(self.max_pending, len(self.peer_listener._callers))

    def wait_for(self, host: str) -> Connection:
        deadline = time.monotonic() + 20
        while host not in self.admitted_hosts:
            assert time.monotonic() < deadline, f"{host} was not admitted"
            time.sleep(0.01)
        return self.admitted_hosts[host]

    def end(self) -> None:
        self._is_ended.set()


@pytest.fixture
def first_host() -> Iterator[FirstHost]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, contextlib.ExitStack() as stack:
        peer_listener = stack.enter_context(contextlib.closing(PeerListener(listener, SECRET, [HOST])))
        host = FirstHost(listener.getsockname(), peer_listener)
        thread = threading.Thread(target=host.admit_hosts)
        thread.start()
        yield host
        host.end()
        thread.join()
        for connection in host.admitted_hosts.values():
            connection.close()


def connect_without_secret(address: Address, message: bytes = b"") -> socket.socket:
    peer_socket = socket.create_connection(address, timeout=20)
    try:
        peer_socket.sendall(message)
    except ConnectionError:  # the other side may drop the caller before it has read the whole message
        peer_socket.close()
        raise
    return peer_socket


def is_dropped(peer_socket: socket.socket) -> bool:
    """Wait for the other side, and close the socket. Return whether the other side closed it without sending more."""
    with peer_socket, contextlib.suppress(ConnectionResetError):
        return peer_socket.recv(1) == b""
    return True


def make_hello(secret: bytes = SECRET) -> bytes:
    content = peers.encode_claim(HOST, secrets.token_bytes(NONCE_BYTES))
    return content + peers._compute_mac(secret, b"hello", content)


def read_bytes(peer_socket: socket.socket, size: int) -> bytes:
    return peers._read(peer_socket, size, time.monotonic() + 20)


def receive_message(connection: Connection) -> bytes:
    """Wait for the next message, and return it. The other side must send one message at a time."""
    while not (messages := connection.receive()):
        pass
    return messages[0]


def test_messages_of_all_sizes_arrive_completely(first_host: FirstHost) -> None:
    with contextlib.closing(peers.call(first_host.address, SECRET, HOST)) as caller:
        listener = first_host.wait_for(HOST)
        for message in (b"", b"x", secrets.token_bytes(peers.MAX_FRAME_BYTES)):
            for sender, receiver in ((caller, listener), (listener, caller)):
                thread = threading.Thread(target=sender.send, args=(message,))
                thread.start()
                assert receive_message(receiver) == message
                thread.join()


def test_unexpected_caller_is_refused(first_host: FirstHost) -> None:
    with pytest.raises(UntrustedError, match="closed the connection during the handshake"):
        peers.call(first_host.address, SECRET, "algo-3")
    assert first_host.admitted_hosts == {}


def test_host_is_admitted_once(first_host: FirstHost) -> None:
    with contextlib.closing(peers.call(first_host.address, SECRET, HOST)) as caller:
        with pytest.raises(UntrustedError):
            peers.call(first_host.address, SECRET, HOST)
        caller.send(b"still connected")
        assert receive_message(first_host.wait_for(HOST)) == b"still connected"


def test_caller_with_another_secret_is_refused_and_counted(first_host: FirstHost) -> None:
    with pytest.raises(UntrustedError):
        peers.call(first_host.address, OTHER_SECRET, HOST)
    assert first_host.peer_listener.refused_count == 1
    assert first_host.admitted_hosts == {}


@pytest.mark.parametrize(
    "message",
    [
        b"algo-2",
        b'{"host": "algo-2"}\n',
        b"GET / HTTP/1.1\r\n\r\n" + b"x" * HELLO_BYTES,
        b"\xff" * 1_000_000,
        peers.encode_claim(HOST, b"n" * NONCE_BYTES) + b"\0" * MAC_BYTES,
        make_hello(OTHER_SECRET),
    ],
)
def test_unauthenticated_caller_gets_no_answer(
    message: bytes, first_host: FirstHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "HANDSHAKE_SECONDS", 0.5)
    with contextlib.suppress(ConnectionError):
        assert is_dropped(connect_without_secret(first_host.address, message))
    peers.call(first_host.address, SECRET, HOST, seconds=20).close()


@pytest.mark.parametrize("reflected_slice", [slice(NONCE_BYTES, None), slice(0, MAC_BYTES)])
def test_reflected_challenge_is_no_proof(reflected_slice: slice, first_host: FirstHost) -> None:
    """An attacker with a recorded hello sends parts of the challenge back."""
    with connect_without_secret(first_host.address, make_hello()) as caller:
        caller.sendall(read_bytes(caller, CHALLENGE_BYTES)[reflected_slice])
        assert is_dropped(caller)
    assert first_host.admitted_hosts == {}


class Relay:
    """An attacker between a host and the first host, who can read and change the host's messages."""

    def __init__(self, target: Address, change: Callable[[bytes], bytes] = lambda sent: sent) -> None:
        self.messages: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address: Address = self._server.getsockname()
        self._target, self._change = target, change
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        host_socket, first_host_socket = self._server.accept()[0], socket.create_connection(self._target)
        reply_thread = threading.Thread(
            target=self._copy, args=(first_host_socket, host_socket, lambda sent: sent, []), daemon=True
        )
        reply_thread.start()
        self._copy(host_socket, first_host_socket, self._change, self.messages)
        reply_thread.join()
        host_socket.close()
        first_host_socket.close()

    def _copy(
        self, source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes], messages: list[bytes]
    ) -> None:
        with contextlib.suppress(OSError):
            while sent := source.recv(1 << 20):
                messages.append(sent)
                # the first two messages of a host are those of the handshake, which stay unchanged
                target.sendall(change(sent) if len(messages) > 2 else sent)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._thread.join(20)
        self._server.close()


def test_recorded_handshake_cannot_be_replayed(first_host: FirstHost) -> None:
    with contextlib.closing(Relay(first_host.address)) as relay:
        with contextlib.closing(peers.call(relay.address, SECRET, HOST)):
            first_host.wait_for(HOST).close()
        hello, proof = relay.messages[:2]
    first_host.admitted_hosts.clear()
    first_host.peer_listener._expected_hosts.add(
        HOST
    )  # the listener now behaves as if the host could be admitted again
    with connect_without_secret(first_host.address, hello) as caller:
        read_bytes(caller, CHALLENGE_BYTES)
        caller.sendall(proof)
        assert is_dropped(caller)
    assert first_host.admitted_hosts == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda sent: sent[:-1] + bytes([sent[-1] ^ 1]),
        lambda sent: sent + sent,
        lambda sent: b"\xff\xff\xff\xff" + sent[4:],
        lambda sent: b"injected" * 10 + sent,
    ],
    ids=["changed", "repeated", "longer than allowed", "injected"],
)
def test_frames_cannot_be_changed_between_hosts(change: Callable[[bytes], bytes], first_host: FirstHost) -> None:
    relay = Relay(first_host.address, change)
    with contextlib.closing(peers.call(relay.address, SECRET, HOST)) as caller:
        listener = first_host.wait_for(HOST)
        caller.send(b"message")
        with pytest.raises(UntrustedError):
            receive_two_messages(listener)
        listener.close()
    relay.close()


def receive_two_messages(connection: Connection) -> None:
    for _ in range(2):
        assert receive_message(connection) == b"message"


def start_listener_without_secret(make_answer: Callable[[bytes], bytes]) -> tuple[Address, threading.Thread]:
    """Start a listener that answers one hello, but does not know the secret. Return its address and its thread."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with server, server.accept()[0] as peer_socket, contextlib.suppress(OSError):
            peer_socket.sendall(make_answer(read_bytes(peer_socket, HELLO_BYTES)))
            peer_socket.recv(1)

    thread = threading.Thread(target=run)
    thread.start()
    return server.getsockname(), thread


@pytest.mark.parametrize(
    "make_answer",
    [
        lambda _: b"\x80\x05" * CHALLENGE_BYTES,
        lambda hello: hello[8 : 8 + NONCE_BYTES] + hello[-MAC_BYTES:],
        lambda hello: (
            b"n" * NONCE_BYTES + peers._compute_mac(OTHER_SECRET, b"challenge", hello[:-MAC_BYTES], b"n" * NONCE_BYTES)
        ),
    ],
    ids=["garbage", "reflected", "another secret"],
)
def test_caller_rejects_a_listener_without_the_secret(make_answer: Callable[[bytes], bytes]) -> None:
    address, thread = start_listener_without_secret(make_answer)
    with pytest.raises(UntrustedError, match="does not know the job's secret"):
        peers.call(address, SECRET, HOST)
    thread.join()


@pytest.mark.parametrize("answer", [b"", b"x"])
def test_caller_does_not_wait_for_a_silent_listener(answer: bytes) -> None:
    address, thread = start_listener_without_secret(lambda _: answer)
    with pytest.raises(TimeoutError):
        peers.call(address, SECRET, HOST, seconds=0.3)
    thread.join()


def test_caller_waits_for_a_busy_first_host() -> None:
    """A caller that has sent its proof keeps waiting: the first host has admitted it, and would refuse a new call."""
    server = socket.create_server(("127.0.0.1", 0))

    def admit() -> None:
        with server, server.accept()[0] as peer_socket:
            transcript = read_bytes(peer_socket, HELLO_BYTES)[:-MAC_BYTES] + secrets.token_bytes(NONCE_BYTES)
            peer_socket.sendall(transcript[-NONCE_BYTES:] + peers._compute_mac(SECRET, b"challenge", transcript))
            read_bytes(peer_socket, MAC_BYTES)
            time.sleep(0.6)
            peer_socket.sendall(Connection(peer_socket, SECRET, transcript, is_caller=False).wrap(b""))
            peer_socket.recv(1)

    thread = threading.Thread(target=admit)
    thread.start()
    peers.call(server.getsockname(), SECRET, HOST, seconds=0.3).close()
    thread.join()


def test_slow_unauthenticated_callers_are_dropped(first_host: FirstHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that sends single bytes would otherwise never time out."""
    monkeypatch.setattr(peers, "HANDSHAKE_SECONDS", 0.5)
    with connect_without_secret(first_host.address) as caller, contextlib.suppress(ConnectionError):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            caller.sendall(peers.MAGIC[:1])
            time.sleep(0.05)
            if first_host.peer_listener._callers == []:
                break
        assert time.monotonic() < deadline


def test_slow_listener_times_out() -> None:
    """A listener that sends single bytes would otherwise never time out."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send_slowly() -> None:
            with server.accept()[0] as peer_socket, contextlib.suppress(ConnectionError):
                for _ in range(CHALLENGE_BYTES):
                    peer_socket.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=send_slowly)
        thread.start()
        with pytest.raises(TimeoutError):
            peers.call(server.getsockname(), SECRET, HOST, seconds=0.3)
        thread.join()


def test_flood_of_connections_does_not_block_hosts_or_fill_memory(first_host: FirstHost) -> None:
    """Callers without the secret open connections: some send nothing, and some repeat a recorded hello."""
    recorded_hello, is_ended = make_hello(), threading.Event()

    def flood(message: bytes) -> None:
        connections: list[socket.socket] = []
        while not is_ended.is_set():
            with contextlib.suppress(OSError):
                connections.append(connect_without_secret(first_host.address, message))
            if len(connections) > 100:
                connections.pop(0).close()
        for peer_socket in connections:
            peer_socket.close()

    tracemalloc.start()
    threads = [threading.Thread(target=flood, args=(message,)) for message in (b"", b"", recorded_hello)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    try:
        with contextlib.closing(call_until_admitted(first_host.address)) as caller:
            caller.send(b"message")
            assert receive_message(first_host.wait_for(HOST)) == b"message"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        is_ended.set()
        tracemalloc.stop()
        for thread in threads:
            thread.join()
    assert first_host.max_pending <= peers.MAX_PENDING_CALLERS
    assert peak < 20_000_000


def call_until_admitted(address: Address) -> Connection:
    """Call the first host until it answers, as a host does."""
    deadline = time.monotonic() + 40
    while True:
        try:
            return peers.call(address, SECRET, HOST)
        except OSError:
            assert time.monotonic() < deadline, "the first host did not admit the caller"
            time.sleep(0.05)


contains_unpickling = re.compile(
    r"import (pickle|marshal|shelve|dill|cloudpickle|joblib)|multiprocessing.connection|allow_pickle=True"
    r"|weights_only=False|torch\.load\((?!.*weights_only=True)|dist\.\w*_object"
).search


def test_nothing_on_the_network_is_unpickled() -> None:
    """No code of the jobs or the server calls functions that unpickle. `torch.load` loads weights only."""
    sources = [
        path for folder in ("shared", "containers", "orchestrator") for path in (REPOSITORY / folder).rglob("*.py")
    ]
    assert [
        (str(path), line) for path in sources for line in path.read_text().splitlines() if contains_unpickling(line)
    ] == []
