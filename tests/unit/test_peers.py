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
    Door,
    UntrustedError,
)
from tests.conftest import REPOSITORY

SECRET, OTHER_SECRET = b"s" * 64, b"o" * 64
HOST = "algo-2"
Address = tuple[str, int]


@dataclass
class FirstHost:
    """A door in a thread, like the door of the first host of a job."""

    address: Address
    door: Door
    admitted: dict[str, Connection] = field(default_factory=dict)
    max_pending: int = 0
    _is_ended: threading.Event = field(default_factory=threading.Event)

    def admit_hosts(self) -> None:
        while not self._is_ended.is_set():
            for host, connection in self.door.admit(0.05):
                connection.set_blocking(True)
                self.admitted[host] = connection
            self.max_pending = max(self.max_pending, len(self.door._callers))

    def wait_for(self, host: str) -> Connection:
        deadline = time.monotonic() + 20
        while host not in self.admitted:
            assert time.monotonic() < deadline, f"{host} was not admitted"
            time.sleep(0.01)
        return self.admitted[host]

    def end(self) -> None:
        self._is_ended.set()


@pytest.fixture
def first() -> Iterator[FirstHost]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, contextlib.ExitStack() as stack:
        door = stack.enter_context(contextlib.closing(Door(listener, SECRET, [HOST])))
        host = FirstHost(listener.getsockname(), door)
        thread = threading.Thread(target=host.admit_hosts)
        thread.start()
        yield host
        host.end()
        thread.join()
        for connection in host.admitted.values():
            connection.close()


def connect_stranger(address: Address, message: bytes = b"") -> socket.socket:
    connected = socket.create_connection(address, timeout=20)
    connected.sendall(message)
    return connected


def is_dropped(connected: socket.socket) -> bool:
    """Return whether the other side closes the connection without sending more."""
    with connected, contextlib.suppress(ConnectionResetError):
        return connected.recv(1) == b""
    return True


def make_hello(secret: bytes = SECRET) -> bytes:
    content = peers.encode_claim(HOST, secrets.token_bytes(NONCE_BYTES))
    return content + peers._mac(secret, b"hello", content)


def read(connected: socket.socket, size: int) -> bytes:
    return peers._read(connected, size, time.monotonic() + 20)


def receive_one(connection: Connection) -> bytes:
    """Wait for the next message, and return it. The other side must send one message at a time."""
    while not (messages := connection.receive()):
        pass
    return messages[0]


def test_messages_of_all_sizes_arrive_completely(first: FirstHost) -> None:
    with contextlib.closing(peers.call(first.address, SECRET, HOST)) as caller:
        listener = first.wait_for(HOST)
        for message in (b"", b"x", secrets.token_bytes(peers.MAX_FRAME_BYTES)):
            for sender, receiver in ((caller, listener), (listener, caller)):
                sending = threading.Thread(target=sender.send, args=(message,))
                sending.start()
                assert receive_one(receiver) == message
                sending.join()


def test_unexpected_caller_is_refused(first: FirstHost) -> None:
    with pytest.raises(UntrustedError, match="closed the connection during the handshake"):
        peers.call(first.address, SECRET, "algo-3")
    assert first.admitted == {}


def test_host_is_admitted_once(first: FirstHost) -> None:
    with contextlib.closing(peers.call(first.address, SECRET, HOST)) as caller:
        with pytest.raises(UntrustedError):
            peers.call(first.address, SECRET, HOST)
        caller.send(b"still connected")
        assert receive_one(first.wait_for(HOST)) == b"still connected"


def test_caller_with_another_secret_is_refused_and_counted(first: FirstHost) -> None:
    with pytest.raises(UntrustedError):
        peers.call(first.address, OTHER_SECRET, HOST)
    assert first.door.refused == 1
    assert first.admitted == {}


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
def test_stranger_gets_no_answer(message: bytes, first: FirstHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "HANDSHAKE_SECONDS", 0.5)
    with contextlib.suppress(ConnectionError):
        assert is_dropped(connect_stranger(first.address, message))
    peers.call(first.address, SECRET, HOST, seconds=20).close()


@pytest.mark.parametrize("reflected", [slice(NONCE_BYTES, None), slice(0, MAC_BYTES)])
def test_reflected_challenge_is_no_proof(reflected: slice, first: FirstHost) -> None:
    """An attacker with a recorded hello sends parts of the challenge back."""
    with connect_stranger(first.address, make_hello()) as caller:
        caller.sendall(read(caller, CHALLENGE_BYTES)[reflected])
        assert is_dropped(caller)
    assert first.admitted == {}


class Relay:
    """An attacker between a host and the first host, who can read and change the host's messages."""

    def __init__(self, to: Address, change: Callable[[bytes], bytes] = lambda sent: sent) -> None:
        self.seen: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address: Address = self._server.getsockname()
        self._to, self._change = to, change
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        near, far = self._server.accept()[0], socket.create_connection(self._to)
        back = threading.Thread(target=self._copy, args=(far, near, lambda sent: sent, []), daemon=True)
        back.start()
        self._copy(near, far, self._change, self.seen)
        back.join()
        near.close()
        far.close()

    def _copy(
        self, source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes], seen: list[bytes]
    ) -> None:
        with contextlib.suppress(OSError):
            while sent := source.recv(1 << 20):
                seen.append(sent)
                target.sendall(change(sent) if len(seen) > 2 else sent)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._thread.join(20)
        self._server.close()


def test_recorded_handshake_cannot_be_replayed(first: FirstHost) -> None:
    with contextlib.closing(Relay(first.address)) as relay:
        with contextlib.closing(peers.call(relay.address, SECRET, HOST)):
            first.wait_for(HOST).close()
        hello, proof = relay.seen[:2]
    first.admitted.clear()
    first.door._expected.add(HOST)  # as if the host could be admitted again
    with connect_stranger(first.address, hello) as caller:
        read(caller, CHALLENGE_BYTES)
        caller.sendall(proof)
        assert is_dropped(caller)
    assert first.admitted == {}


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
def test_frames_cannot_be_changed_between_hosts(change: Callable[[bytes], bytes], first: FirstHost) -> None:
    relay = Relay(first.address, change)
    with contextlib.closing(peers.call(relay.address, SECRET, HOST)) as caller:
        listener = first.wait_for(HOST)
        caller.send(b"message")
        with pytest.raises(UntrustedError):
            receive_two(listener)
        listener.close()
    relay.close()


def receive_two(connection: Connection) -> None:
    for _ in range(2):
        assert receive_one(connection) == b"message"


def answer_hello(make_answer: Callable[[bytes], bytes]) -> tuple[Address, threading.Thread]:
    """Start a listener without the secret that answers a hello. Return its address and its thread."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with server, server.accept()[0] as connected, contextlib.suppress(OSError):
            connected.sendall(make_answer(read(connected, HELLO_BYTES)))
            connected.recv(1)

    thread = threading.Thread(target=run)
    thread.start()
    return server.getsockname(), thread


@pytest.mark.parametrize(
    "make_answer",
    [
        lambda _: b"\x80\x05" * CHALLENGE_BYTES,
        lambda hello: hello[8 : 8 + NONCE_BYTES] + hello[-MAC_BYTES:],
        lambda hello: (
            b"n" * NONCE_BYTES + peers._mac(OTHER_SECRET, b"challenge", hello[:-MAC_BYTES], b"n" * NONCE_BYTES)
        ),
    ],
    ids=["garbage", "reflected", "another secret"],
)
def test_caller_rejects_a_listener_without_the_secret(make_answer: Callable[[bytes], bytes]) -> None:
    address, thread = answer_hello(make_answer)
    with pytest.raises(UntrustedError, match="does not know the job's secret"):
        peers.call(address, SECRET, HOST)
    thread.join()


@pytest.mark.parametrize("answer", [b"", b"x"])
def test_caller_does_not_wait_for_a_silent_listener(answer: bytes) -> None:
    address, thread = answer_hello(lambda _: answer)
    with pytest.raises(TimeoutError):
        peers.call(address, SECRET, HOST, seconds=0.3)
    thread.join()


def test_caller_waits_for_a_busy_first_host() -> None:
    """A caller that has sent its proof keeps waiting: the first host has admitted it, and would refuse a new call."""
    server = socket.create_server(("127.0.0.1", 0))

    def admit() -> None:
        with server, server.accept()[0] as connected:
            transcript = read(connected, HELLO_BYTES)[:-MAC_BYTES] + secrets.token_bytes(NONCE_BYTES)
            connected.sendall(transcript[-NONCE_BYTES:] + peers._mac(SECRET, b"challenge", transcript))
            read(connected, MAC_BYTES)
            time.sleep(0.6)
            connected.sendall(Connection(connected, SECRET, transcript, is_caller=False).wrap(b""))
            connected.recv(1)

    thread = threading.Thread(target=admit)
    thread.start()
    peers.call(server.getsockname(), SECRET, HOST, seconds=0.3).close()
    thread.join()


def test_slow_strangers_are_dropped(first: FirstHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger that sends single bytes would otherwise never time out."""
    monkeypatch.setattr(peers, "HANDSHAKE_SECONDS", 0.5)
    with connect_stranger(first.address) as slow, contextlib.suppress(ConnectionError):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            slow.sendall(peers.MAGIC[:1])
            time.sleep(0.05)
            if first.door._callers == []:
                break
        assert time.monotonic() < deadline


def test_slow_listener_times_out() -> None:
    """A listener that sends single bytes would otherwise never time out."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send_slowly() -> None:
            with server.accept()[0] as connected, contextlib.suppress(ConnectionError):
                for _ in range(CHALLENGE_BYTES):
                    connected.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=send_slowly)
        thread.start()
        with pytest.raises(TimeoutError):
            peers.call(server.getsockname(), SECRET, HOST, seconds=0.3)
        thread.join()


def test_flood_of_connections_does_not_block_hosts_or_fill_memory(first: FirstHost) -> None:
    """Strangers open connections without end: some are silent, and some repeat a recorded hello."""
    recorded, is_ended = make_hello(), threading.Event()

    def flood(message: bytes) -> None:
        connections: list[socket.socket] = []
        while not is_ended.is_set():
            with contextlib.suppress(OSError):
                connections.append(connect_stranger(first.address, message))
            if len(connections) > 100:
                connections.pop(0).close()
        for connected in connections:
            connected.close()

    tracemalloc.start()
    floods = [threading.Thread(target=flood, args=(message,)) for message in (b"", b"", recorded)]
    for thread in floods:
        thread.start()
    time.sleep(1)
    try:
        with contextlib.closing(persistent_call(first.address)) as caller:
            caller.send(b"message")
            assert receive_one(first.wait_for(HOST)) == b"message"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        is_ended.set()
        tracemalloc.stop()
        for thread in floods:
            thread.join()
    assert first.max_pending <= peers.MAX_PENDING
    assert peak < 20_000_000


def persistent_call(address: Address) -> Connection:
    """Call the first host until it answers, as a host does."""
    deadline = time.monotonic() + 40
    while True:
        try:
            return peers.call(address, SECRET, HOST)
        except OSError:
            assert time.monotonic() < deadline, "the first host did not admit the caller"
            time.sleep(0.05)


UNPICKLES = re.compile(
    r"import (pickle|marshal|shelve|dill|cloudpickle|joblib)|multiprocessing.connection|allow_pickle=True"
    r"|weights_only=False|torch\.load\((?!.*weights_only=True)|dist\.\w*_object"
).search


def test_nothing_on_the_network_is_unpickled() -> None:
    """No code of the jobs or the server calls functions that unpickle. `torch.load` loads weights only."""
    sources = [path for top in ("shared", "containers", "orchestrator") for path in (REPOSITORY / top).rglob("*.py")]
    assert [(str(path), line) for path in sources for line in path.read_text().splitlines() if UNPICKLES(line)] == []
