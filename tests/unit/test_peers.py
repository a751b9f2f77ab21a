"""Connections between the hosts of a job, attacked on a real listener by strangers who do not know its secret."""

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
    Claim,
    Connection,
    Door,
    UntrustedError,
)
from tests.conftest import REPOSITORY

SECRET, OTHER_SECRET = b"s" * 64, b"o" * 64
CLAIM = Claim("calls", "algo-2")
Address = tuple[str, int]


@dataclass
class FirstHost:
    """A door that a thread attends to, as the first host of a job does."""

    address: Address
    door: Door
    admitted: dict[Claim, Connection] = field(default_factory=dict)
    most_pending: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def attend(self) -> None:
        while not self._over.is_set():
            for claim, connection in self.door.admit(0.05):
                connection.set_blocking(True)
                self.admitted[claim] = connection
            self.most_pending = max(self.most_pending, len(self.door._callers))

    def wait_for(self, claim: Claim) -> Connection:
        deadline = time.monotonic() + 20
        while claim not in self.admitted:
            assert time.monotonic() < deadline, "it was not admitted"
            time.sleep(0.01)
        return self.admitted[claim]

    def end(self) -> None:
        self._over.set()


@pytest.fixture
def first() -> Iterator[FirstHost]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, contextlib.ExitStack() as stack:
        door = stack.enter_context(contextlib.closing(Door(listener, SECRET, [CLAIM])))
        host = FirstHost(listener.getsockname(), door)
        thread = threading.Thread(target=host.attend)
        thread.start()
        yield host
        host.end()
        thread.join()
        for connection in host.admitted.values():
            connection.close()


def stranger(address: Address, said: bytes = b"") -> socket.socket:
    connected = socket.create_connection(address, timeout=20)
    connected.sendall(said)
    return connected


def is_dropped(connected: socket.socket) -> bool:
    """Whether the other side closes the connection without another word."""
    with connected, contextlib.suppress(ConnectionResetError):
        return connected.recv(1) == b""
    return True


def hello(secret: bytes = SECRET, claim: Claim = CLAIM) -> bytes:
    told = claim.encode(secrets.token_bytes(NONCE_BYTES))
    return told + peers._mac(secret, b"hello", told)


def read(connected: socket.socket, size: int) -> bytes:
    return peers._read(connected, size, time.monotonic() + 20)


def test_messages_of_any_size_arrive_whole(first: FirstHost) -> None:
    with contextlib.closing(peers.call(first.address, SECRET, CLAIM)) as caller:
        listener = first.wait_for(CLAIM)
        for message in (b"", b"x", secrets.token_bytes(5_000_000)):
            for sender, receiver in ((caller, listener), (listener, caller)):
                sending = threading.Thread(target=sender.send, args=(message,))
                sending.start()
                assert receiver.receive_one() == message
                sending.join()


@pytest.mark.parametrize("claim", [Claim("calls", "algo-3"), Claim("other", "algo-2")])
def test_caller_that_is_not_expected_is_refused(claim: Claim, first: FirstHost) -> None:
    with pytest.raises(UntrustedError, match="closed the connection during the handshake"):
        peers.call(first.address, SECRET, claim)
    assert first.admitted == {}


def test_host_is_admitted_once(first: FirstHost) -> None:
    with contextlib.closing(peers.call(first.address, SECRET, CLAIM)) as caller:
        with pytest.raises(UntrustedError):
            peers.call(first.address, SECRET, CLAIM)
        caller.send(b"still here")
        assert first.wait_for(CLAIM).receive_one() == b"still here"


def test_caller_with_another_secret_is_refused_and_counted(first: FirstHost) -> None:
    with pytest.raises(UntrustedError):
        peers.call(first.address, OTHER_SECRET, CLAIM)
    assert first.door.refused == 1
    assert first.admitted == {}


@pytest.mark.parametrize(
    "said",
    [
        b"algo-2",
        b'{"host": "algo-2"}\n',
        b"GET / HTTP/1.1\r\n\r\n" + b"x" * HELLO_BYTES,
        b"\xff" * 1_000_000,
        CLAIM.encode(b"n" * NONCE_BYTES) + b"\0" * MAC_BYTES,
        hello(OTHER_SECRET),
    ],
)
def test_stranger_gets_no_answer(said: bytes, first: FirstHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "HANDSHAKE_SECONDS", 0.5)
    with contextlib.suppress(ConnectionError):
        assert is_dropped(stranger(first.address, said))
    peers.call(first.address, SECRET, CLAIM, seconds=20).close()


@pytest.mark.parametrize("reflected", [slice(NONCE_BYTES, None), slice(0, MAC_BYTES)])
def test_own_words_are_no_proof(reflected: slice, first: FirstHost) -> None:
    """Somebody who got hold of a good hello sends back what the listener said."""
    with stranger(first.address, hello()) as caller:
        caller.sendall(read(caller, CHALLENGE_BYTES)[reflected])
        assert is_dropped(caller)
    assert first.admitted == {}


class Relay:
    """Somebody between a host and the first one, who sees and may change what the host sends."""

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
        with contextlib.closing(peers.call(relay.address, SECRET, CLAIM)):
            first.wait_for(CLAIM).close()
        said, proof = relay.seen[:2]
    first.admitted.clear()
    first.door._expected.add(CLAIM)  # even if the host may come again
    with stranger(first.address, said) as caller:
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
    with contextlib.closing(peers.call(relay.address, SECRET, CLAIM)) as caller:
        listener = first.wait_for(CLAIM)
        caller.send(b"message")
        with pytest.raises(UntrustedError):
            receive_two(listener)
        listener.close()
    relay.close()


def receive_two(connection: Connection) -> None:
    for _ in range(2):
        assert connection.receive_one() == b"message"


def answer(said: Callable[[bytes], bytes]) -> tuple[Address, threading.Thread]:
    """A stranger who listens where a host expects the first one, and answers its hello."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with server, server.accept()[0] as connected, contextlib.suppress(OSError):
            connected.sendall(said(read(connected, HELLO_BYTES)))
            connected.recv(1)

    thread = threading.Thread(target=run)
    thread.start()
    return server.getsockname(), thread


@pytest.mark.parametrize(
    "said",
    [
        lambda _: b"\x80\x05" * CHALLENGE_BYTES,
        lambda hello: hello[8 : 8 + NONCE_BYTES] + hello[-MAC_BYTES:],
        lambda hello: (
            b"n" * NONCE_BYTES + peers._mac(OTHER_SECRET, b"challenge", hello[:-MAC_BYTES], b"n" * NONCE_BYTES)
        ),
    ],
    ids=["garbage", "reflected", "another secret"],
)
def test_caller_believes_no_stranger(said: Callable[[bytes], bytes]) -> None:
    address, thread = answer(said)
    with pytest.raises(UntrustedError, match="does not know the job's secret"):
        peers.call(address, SECRET, CLAIM)
    thread.join()


@pytest.mark.parametrize("said", [b"", b"x"])
def test_caller_does_not_wait_for_a_silent_stranger(said: bytes) -> None:
    address, thread = answer(lambda _: said)
    with pytest.raises(TimeoutError):
        peers.call(address, SECRET, CLAIM, seconds=0.3)
    thread.join()


def test_caller_waits_for_a_busy_first_host() -> None:
    """It has been admitted by then, and could not come again."""
    server = socket.create_server(("127.0.0.1", 0))

    def admit() -> None:
        with server, server.accept()[0] as connected:
            transcript = read(connected, HELLO_BYTES)[:-MAC_BYTES] + secrets.token_bytes(NONCE_BYTES)
            connected.sendall(transcript[-NONCE_BYTES:] + peers._mac(SECRET, b"challenge", transcript))
            read(connected, MAC_BYTES)
            time.sleep(0.6)
            connected.sendall(peers.Seal.of(SECRET, transcript, caller=False).wrap(b""))
            connected.recv(1)

    thread = threading.Thread(target=admit)
    thread.start()
    peers.call(server.getsockname(), SECRET, CLAIM, seconds=0.3).close()
    thread.join()


def test_slow_strangers_are_dropped(first: FirstHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte may come in time and all of them never."""
    monkeypatch.setattr(peers, "HANDSHAKE_SECONDS", 0.5)
    with stranger(first.address) as slow, contextlib.suppress(ConnectionError):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            slow.sendall(peers.MAGIC[:1])
            time.sleep(0.05)
            if first.door._callers == []:
                break
        assert time.monotonic() < deadline


def test_flood_keeps_no_host_out_and_takes_no_memory(first: FirstHost) -> None:
    """Silent strangers, and ones who repeat a hello that they got hold of, call and hold on all the time."""
    known, over = hello(), threading.Event()

    def flood(said: bytes) -> None:
        kept = []
        while not over.is_set():
            with contextlib.suppress(OSError):
                kept.append(stranger(first.address, said))
            if len(kept) > 100:
                kept.pop(0).close()
        for connected in kept:
            connected.close()

    tracemalloc.start()
    floods = [threading.Thread(target=flood, args=(said,)) for said in (b"", b"", known)]
    for thread in floods:
        thread.start()
    time.sleep(1)
    try:
        with contextlib.closing(persistent_call(first.address)) as caller:
            caller.send(b"in")
            assert first.wait_for(CLAIM).receive_one() == b"in"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        over.set()
        tracemalloc.stop()
        for thread in floods:
            thread.join()
    assert first.most_pending <= peers.MAX_PENDING
    assert peak < 20_000_000


def persistent_call(address: Address) -> Connection:
    """As a host does: again and again."""
    deadline = time.monotonic() + 40
    while True:
        try:
            return peers.call(address, SECRET, CLAIM)
        except OSError:
            assert time.monotonic() < deadline, "it did not get in"
            time.sleep(0.05)


UNPICKLES = re.compile(
    r"import (pickle|marshal|shelve|dill|cloudpickle|joblib)|multiprocessing.connection|allow_pickle=True"
    r"|weights_only=False|torch\.load\((?!.*weights_only=True)|dist\.\w*_object"
).search


def test_nothing_on_the_network_is_unpickled() -> None:
    """Nothing that runs in a job, or starts one, uses what unpickles. `torch.load` is told to load weights only."""
    sources = [path for top in ("shared", "containers", "orchestrator") for path in (REPOSITORY / top).rglob("*.py")]
    assert [(str(path), line) for path in sources for line in path.read_text().splitlines() if UNPICKLES(line)] == []
