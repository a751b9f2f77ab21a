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
from .cpus import worker_count
from .fast_path import Dispatcher, FallbackHandler
from .listener import ListenerSettings, make_listener
from .metrics import Metrics
from .model_source import ModelSource, find_model_source
from .service import MB, Service
from .user_requirements import RestartNeededError

logger = logging.getLogger("microjobs")

DEFAULT_PAYLOAD_MB = 6
"""SageMaker's limit for InvokeEndpoint, and the default of MaxPayloadInMB of Batch Transform."""
UNLIMITED_PAYLOAD_MB = 1024
"""The limit if MaxPayloadInMB is 0, "no limit": the limit of asynchronous inference."""


def serve() -> None:
    """Serve the model in the model folder until SIGTERM.

    Raises:
        UserError: the model or the user's code cannot be loaded, or the port is not available.
        PlatformError: workers keep crashing.
    """
    try:
        _serve()
    except RestartNeededError as restart:  # after this process has removed its temporary folders
        restart.restart()


def _serve() -> None:
    layout, hosting, network = Layout.from_environment(), _read_hosting(os.environ), Network.read()
    listener, worker_number = make_listener(os.environ), worker_count(os.environ)
    with ExitStack() as cleanup:
        source = find_model_source(layout, os.environ, cleanup)
        metrics, failures = Metrics(source.labels), workers.FailurePipe()
        service = Service(metrics, limit=_payload_limit(hosting), workers=worker_number)
        settings = workers.make_settings(network.address, hosting.port, network.socket_path, worker_number)
        _log_start(source.labels, settings)
        gc.freeze()  # collecting what stays would take time, and copy memory pages that workers share
        start = functools.partial(_start_application, source, service, failures)
        workers.run(listener, start, metrics, failures, settings)


def _start_application(source: ModelSource, service: Service, failures: workers.FailurePipe) -> Dispatcher:
    """Load the model in a worker and return the application that answers the worker's requests."""
    service.metrics.claim_row()
    fallback = functools.cache(functools.partial(_make_fallback, service))

    def load_slowly() -> None:
        fallback()  # imports Flask before the user's folder, which may have a module such as click.py, is on the path
        service.set_model(source.load())

    if source.loads_slowly:
        workers.run_in_background(load_slowly, failures)
    else:
        service.set_model(source.load())
    return Dispatcher(service, lambda head: fallback()(head), queue_size=source.queue_size)


def _make_fallback(service: Service) -> FallbackHandler:
    # Imported at the first use, because the import delays the start, and most endpoints never need it.
    from .flask_routes import as_fallback_handler, create_app

    return as_fallback_handler(create_app(service))


def _log_start(labels: Mapping[str, str], settings: ListenerSettings) -> None:
    model = ", ".join(f"{name} {value}" for name, value in labels.items())
    place = settings.socket_path or f"port {settings.port}"
    seconds = _seconds_since_start()
    logger.info("serving %s on %s with %d workers, after %.2f s", model, place, settings.workers, seconds)


def _read_hosting(environ: Mapping[str, str]) -> HostingEnvironment:
    try:
        return HostingEnvironment.read(environ)
    except ValueError as error:
        raise UserError(f"SAGEMAKER_BIND_TO_PORT and SAGEMAKER_MAX_… must be numbers: {error}") from error


def _payload_limit(hosting: HostingEnvironment) -> int:
    """Return the maximum size of a request body in bytes."""
    megabytes = DEFAULT_PAYLOAD_MB if hosting.max_payload_mb is None else hosting.max_payload_mb
    return (megabytes or UNLIMITED_PAYLOAD_MB) * MB


def _seconds_since_start() -> float:
    """Return the time since this process started, imports included."""
    start_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / os.sysconf("SC_CLK_TCK")
