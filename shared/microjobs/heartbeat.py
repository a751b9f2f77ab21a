"""Heartbeat between the hosts of a job, independent of the framework.

Frameworks detect a lost host late (a frozen host after half an hour), and their errors are unclear. Therefore, each
host has a TCP connection to the first host. The first host decides how the job ended and sends this verdict to all
hosts: success, stopped, or the reason of the host that failed or was lost. Messages are JSON; `peers` authenticates the
connections.
"""

import contextlib
import json
import logging
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from microjobs import peers
from microjobs.contract import Layout, ResourceConfig, read_job_secret
from microjobs.endings import Certainty, Ending
from microjobs.errors import EXIT_OK, EXIT_PLATFORM, PlatformError
from microjobs.network import HEARTBEAT_PORT, Network
from microjobs.peers import Connection, PeerListener, UntrustedError

JOIN_SECONDS = 45.0
"""Seconds for which hosts wait for each other at the start."""
LOST_SECONDS = 20.0
"""Seconds without a message after which a host counts as lost: it is frozen, or its network is interrupted."""
BEAT_SECONDS = 1.0
"""Seconds between two messages that only show that a host is alive."""
CERTAIN_REASON_WAIT_SECONDS = 3.0
"""Seconds to wait for a more certain reason after an uncertain reason. A framework may report a lost connection before
the host that caused the failure reports the cause."""

logger = logging.getLogger("microjobs")


class HostHeartbeat:
    """The heartbeat of one host. `step` sends and receives messages; `verdict` is None until the job has ended.

    Raises:
        UserError: the job's secret is too short.
    """

    def __init__(self, resources: ResourceConfig, network: Network) -> None:
        self.verdict: Ending | None = None
        self.stop_signal: int | None = None
        """The first stop signal that a host received."""
        self._resources = resources
        self._network = network
        self._secret = read_job_secret(Layout.from_environment())
        self._selector = selectors.DefaultSelector()
        self._connections: dict[str, _JsonConnection] = {}
        """Connections by host. The first host is connected to all other hosts; they are connected only to the first."""
        self._endings: list[tuple[float, Ending]] = []
        """The endings that the first host knows, each with the time of its arrival."""
        self._have_all_joined = len(resources.hosts) == 1
        self._last_beat = 0.0
        self._last_step = time.monotonic()

    def __enter__(self) -> "HostHeartbeat":
        return self

    def __exit__(self, *_: object) -> None:
        self._close_connections()
        self._selector.close()

    def join(self, seconds: float, is_waiting: Callable[[], bool]) -> None:
        """Wait until all hosts have joined, `verdict` is set, or `is_waiting` returns False.

        Raises:
            PlatformError: this host cannot listen, or cannot reach the first host.
        """
        if not self._is_joining():
            return
        if self._resources.is_first:
            port = self._network.port(self._resources.first_host, HEARTBEAT_PORT)
            with (
                self._network.listen(port) as listener,
                contextlib.closing(PeerListener(listener, self._secret, self._resources.hosts[1:])) as peer_listener,
            ):
                self._accept_hosts(peer_listener, seconds, is_waiting)
        else:
            self._connect_to_first(seconds, is_waiting)
        while self._is_joining() and is_waiting():
            self.step(seconds=0.1)

    def step(self, seconds: float) -> None:
        """Receive messages for at most `seconds`, send a beat if it is due, and update the verdict."""
        for key, _ in self._selector.select(seconds):
            if isinstance(key.data, str) and key.data in self._connections:
                for message in self._connections[key.data].receive():
                    self._handle(key.data, message)
        self._send_beat_if_due()
        for host, connection in list(self._connections.items()):
            if connection.is_closed or connection.silent_seconds > LOST_SECONDS:
                self._handle_lost_host(host)
        if self._resources.is_first:
            self._choose_verdict()

    def _send_beat_if_due(self) -> None:
        now = time.monotonic()
        if now - self._last_step > LOST_SECONDS / 4:
            # this process was paused, for example by Ctrl-Z, so it has not received the messages of other hosts yet
            for connection in self._connections.values():
                connection.last_message_time = now
        self._last_step = now
        if now - self._last_beat > BEAT_SECONDS:
            self._last_beat = now
            self._send_all({"beat": True})

    def wake_for(self, descriptor: int) -> None:
        """Make `step` return early when the descriptor is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def stop(self, signal_number: int) -> None:
        """Send a stop signal to all hosts."""
        if self.stop_signal is None:
            self.stop_signal = signal_number
            self._send_all({"stop": signal_number})

    def end(self, ending: Ending) -> Ending:
        """Send the ending of this host, wait for the verdict, and return it."""
        if self.verdict is not None:
            return self.verdict
        if self._resources.is_first:
            self._endings.append((time.monotonic(), ending))
        elif self._connections:
            self._send_all({"ending": asdict(ending)})
        else:  # this host never reached the first host
            self.verdict = ending
        while self.verdict is None:
            self.step(seconds=0.1)
        return self.verdict

    # --- joining ---

    def _is_joining(self) -> bool:
        return not self._have_all_joined and self.verdict is None

    def _accept_hosts(self, peer_listener: PeerListener, seconds: float, is_waiting: Callable[[], bool]) -> None:
        """Accept the connections of all other hosts. With a job secret, each host proves that it knows the secret."""
        if not self._secret:
            logger.info(
                "%s does not exist: the hosts trust the job's network and do not authenticate each other", _SECRET_FILE
            )
        deadline = time.monotonic() + seconds
        while self._is_joining() and (missing := self._list_missing_hosts()) and is_waiting():
            if time.monotonic() > deadline:
                self._fail(missing[0], self._describe_missing(missing, seconds, peer_listener.refused_count))
            for host, peer_connection in peer_listener.admit(seconds=0.1):
                self._add_connection(host, peer_connection)
            self.step(seconds=0)
        if not self._list_missing_hosts():
            self._have_all_joined = True
            self._send_all({"together": True})

    def _describe_missing(self, missing: Sequence[str], seconds: float, refused_count: int) -> str:
        count = len(self._resources.hosts)
        cause = f"{count - len(missing)} of {count} hosts joined"
        if refused_count:
            cause += f"; connections used a wrong job secret ({refused_count}): "
            cause += f"give every host of the job the same {_SECRET_FILE}"
        return f"host {', '.join(missing)} did not join within {seconds:g} s: {cause}; see the missing host's log"

    def _add_connection(self, host: str, peer_connection: Connection) -> None:
        self._connections[host] = _JsonConnection(peer_connection)
        self._selector.register(peer_connection, selectors.EVENT_READ, host)

    def _list_missing_hosts(self) -> list[str]:
        ended_hosts = {ending.host for _, ending in self._endings}
        present_hosts = {self._resources.current_host, *self._connections, *ended_hosts}
        return [host for host in self._resources.hosts if host not in present_hosts]

    def _connect_to_first(self, seconds: float, is_waiting: Callable[[], bool]) -> None:
        """Connect to the first host.

        The first host may start later, and its name may not resolve yet. Therefore, failed calls are repeated.
        """
        first, deadline = self._resources.first_host, time.monotonic() + seconds
        while is_waiting():
            address = self._network.resolve(first), self._network.port(first, HEARTBEAT_PORT)
            try:
                self._add_connection(first, peers.call(address, self._secret, self._resources.current_host))
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise PlatformError(
                        f"host {first}, the first of the job, did not answer within {seconds:g} s: {_explain(error)}"
                    ) from error
                time.sleep(0.05)

    # --- messages ---

    def _send_all(self, message: dict[str, Any]) -> None:
        for connection in self._connections.values():
            connection.send(message)

    def _handle(self, host: str, message: dict[str, Any]) -> None:
        if "together" in message:
            self._have_all_joined = True
        elif "stop" in message and self.stop_signal is None:
            self.stop_signal = int(message["stop"])
            if self._resources.is_first:
                self._send_all(message)
        elif "ending" in message and self._resources.is_first:
            self._endings.append((time.monotonic(), Ending(**message["ending"])))
        elif "verdict" in message and host == self._resources.first_host:
            self.verdict = Ending(**message["verdict"])

    def _handle_lost_host(self, host: str) -> None:
        connection = self._connections.pop(host)
        self._selector.unregister(connection.peer_connection)
        connection.peer_connection.close()
        if self.verdict is not None or host in {ending.host for _, ending in self._endings}:
            return
        cause = "its container ended or its network failed"
        if connection.silent_seconds >= LOST_SECONDS:
            cause = f"it sent no message for {LOST_SECONDS:g} s"
        self._fail(host, f"lost host {host}: {cause}; see its log")

    def _fail(self, host: str, reason: str) -> None:
        ending = Ending(host, EXIT_PLATFORM, reason)
        if self._resources.is_first:
            self._endings.append((time.monotonic(), ending))
        else:  # the first host, which decides about the verdict, is lost
            self.verdict = ending

    def _choose_verdict(self) -> None:
        """Choose the verdict on the first host: the earliest of the most certain failures, or success of all hosts."""
        if self.verdict is not None:
            return
        failures = [(end_time, ending) for end_time, ending in self._endings if ending.code != EXIT_OK]
        cause = max(failures, key=lambda item: item[1].certainty, default=None)  # max returns the first of equal items
        if cause is not None:
            if (
                cause[1].certainty == Certainty.CERTAIN
                or time.monotonic() - failures[0][0] > CERTAIN_REASON_WAIT_SECONDS
            ):
                self.verdict = cause[1]
        elif {ending.host for _, ending in self._endings} == set(self._resources.hosts):
            self.verdict = Ending(self._resources.current_host)
        if self.verdict is not None:
            self._send_all({"verdict": asdict(self.verdict)})

    def _close_connections(self) -> None:
        """Deliver all messages, then close all connections. Closing a connection with unread data drops messages."""
        for connection in self._connections.values():
            connection.peer_connection.finish_sending()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and any(
            not connection.is_closed for connection in self._connections.values()
        ):
            for key, _ in self._selector.select(0.1):
                if isinstance(key.data, str):
                    connection = self._connections[key.data]
                    connection.receive()
                    if connection.is_closed:
                        self._selector.unregister(connection.peer_connection)
        for connection in self._connections.values():
            connection.peer_connection.close()


_SECRET_FILE = Layout().job_secret


def _explain(error: OSError) -> str:
    if isinstance(error, UntrustedError):
        return f"{error}: give every host of the job the same {_SECRET_FILE}, and end other programs on that port"
    return str(error)


class _JsonConnection:
    """A connection that carries JSON objects. If the peer does not read, `send` fails instead of blocking."""

    def __init__(self, peer_connection: Connection) -> None:
        peer_connection.set_blocking(False)
        self.peer_connection = peer_connection
        self.is_closed = False
        self.last_message_time = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        """Seconds since the last message."""
        return time.monotonic() - self.last_message_time

    def send(self, message: dict[str, Any]) -> None:
        try:
            self.peer_connection.send(json.dumps(message).encode())
        except OSError:
            self.is_closed = True

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have arrived, without waiting."""
        try:
            messages = self.peer_connection.receive()
        except BlockingIOError:
            return []
        except (OSError, EOFError):
            messages, self.is_closed = [], True
        self.last_message_time = time.monotonic()
        return [json.loads(message) for message in messages]
