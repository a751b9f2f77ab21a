"""Granian's process manager, with the settings that `rsgi_listener` and `asyncio_listener` share. This module uses only
public interfaces."""

from collections.abc import Callable

from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels
from granian.server import MPServer

from .listener import ListenerSettings

STOP_TIMEOUT_SECONDS = 20
"""Seconds in which requests in progress may end, after `drain`. Hosting kills a container 30 s after SIGTERM.
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html"""


class DrainingServer(MPServer):
    """Granian's server, which also calls `drain` before it closes the connections."""

    drain: Callable[[], None]

    def shutdown(self, exit_code: int = 0) -> None:
        self.drain()
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]


def make_server(drain: Callable[[], None], settings: ListenerSettings) -> DrainingServer:
    server = DrainingServer(
        "serve",
        address=settings.address,
        port=settings.port,
        uds=settings.socket_path,
        uds_permissions=0o600,
        interface=Interfaces.RSGI,
        workers=settings.workers,
        backpressure=settings.max_connections,
        loop=Loops.uvloop,
        websockets=False,
        http=HTTPModes.http1,
        log_level=LogLevels.error,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_TIMEOUT_SECONDS,
    )
    server.drain = drain
    return server
