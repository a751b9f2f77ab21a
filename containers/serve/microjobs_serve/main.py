"""Hosting and Batch Transform: an HTTP server for one model."""

import functools
import gc
import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from microjobs.contract import HostingEnvironment, Layout
from microjobs.errors import UserError
from microjobs.network import Network

from . import workers
from .hot import Front, Rest
from .metrics import Metrics
from .requirements import RestartNeededError
from .served import find
from .service import MB, Service

logger = logging.getLogger("microjobs")

DEFAULT_PAYLOAD_MB = 6
"""What SageMaker's runtime sends at most, and Batch Transform's default."""
UNLIMITED_PAYLOAD_MB = 1024
"""For Batch Transform's MaxPayloadInMB of 0, "no limit": what asynchronous inference allows."""


def serve() -> None:
    """Serve the model in the model folder until SIGTERM.

    Raises:
        UserError: the model or the user's code cannot be loaded, or the port cannot be had.
        PlatformError: workers died again and again.
    """
    try:
        _serve()
    except RestartNeededError as needed:  # once the temporary folders of this process are removed
        needed.restart()


def _serve() -> None:
    layout, hosting, number = Layout.from_environment(), _hosting(os.environ), workers.count(os.environ)
    with ExitStack() as cleanup:
        served = find(layout, os.environ, cleanup)
        metrics, reason = Metrics(served.labels), workers.Reason()
        service = Service(metrics, limit=_limit(hosting), workers=number)

        rest = functools.cache(functools.partial(_rest, service))

        def load_slowly() -> None:
            rest()  # before the user's folder is on sys.path: Flask must not find modules of the user
            service.loaded(served.load())

        def start_worker() -> Front:
            metrics.claim()
            if served.slow:
                workers.in_background(load_slowly, reason)
            else:
                service.loaded(served.load())
            return Front(service, lambda scope: rest()(scope), in_flight=served.in_flight)

        what = ", ".join(f"{name} {value}" for name, value in served.labels.items())
        age = _seconds_since_start()
        network = Network.read()
        where = network.socket_path or f"port {hosting.port}"
        logger.info("serving %s on %s with %d workers, after %.2f s", what, where, number, age)
        gc.freeze()  # what is loaded stays: collecting it again and again would also unshare its pages
        workers.run(
            start_worker,
            metrics,
            reason,
            address=network.address,
            port=hosting.port,
            path=network.socket_path,
            workers=number,
        )


def _rest(service: Service) -> Rest:
    # Imported at the first request that needs it: an endpoint should be ready soon, and most never do.
    from .application import answering, create

    return answering(create(service))


def _hosting(environ: Mapping[str, str]) -> HostingEnvironment:
    try:
        return HostingEnvironment.read(environ)
    except ValueError as error:
        raise UserError(f"SAGEMAKER_BIND_TO_PORT and SAGEMAKER_MAX_… must be numbers: {error}") from error


def _limit(hosting: HostingEnvironment) -> int:
    """Bytes that a request may have."""
    megabytes = DEFAULT_PAYLOAD_MB if hosting.max_payload_mb is None else hosting.max_payload_mb
    return (megabytes or UNLIMITED_PAYLOAD_MB) * MB


def _seconds_since_start() -> float:
    """The age of this process, imports included."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
