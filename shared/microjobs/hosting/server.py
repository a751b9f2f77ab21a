"""Runs the HTTP server of an image that serves, from its start to SIGTERM."""

import functools
import gc
import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from microjobs.contract import Layout, is_multi_model, read_hosting_variables
from microjobs.network import Network

from . import workers
from .batching import BatchSettings, read_settings
from .fast_path import Dispatcher, FallbackHandler
from .listener import ListenerSettings, find_listener
from .metrics import Metrics
from .model_source import FindModelSource, ModelSource
from .multi_model import make_multi_model_source
from .service import MB, Service
from .user_requirements import RestartNeededError

logger = logging.getLogger("microjobs")

DEFAULT_PAYLOAD_MB = 6
"""SageMaker's limit for InvokeEndpoint, and the default of MaxPayloadInMB of Batch Transform."""
UNLIMITED_PAYLOAD_MB = 1024
"""The limit if MaxPayloadInMB is 0 ("no limit"). It equals the limit of asynchronous inference."""


def serve(find_model_source: FindModelSource) -> None:
    """Serve the model in the model folder until SIGTERM.

    Args:
        find_model_source: function that returns the model to serve. It is called once, before the workers are forked.

    Raises:
        UserError: the model or the user's code cannot be loaded, or the port is not available.
        PlatformError: workers keep crashing.
    """
    try:
        _serve(find_model_source)
    except RestartNeededError as error:  # at this point, this process has removed its temporary folders
        error.restart()


def _serve(find_model_source: FindModelSource) -> None:
    layout, network = Layout.from_environment(), Network.read()
    port, payload_mb = read_hosting_variables(os.environ)
    if payload_mb is None:
        payload_mb = DEFAULT_PAYLOAD_MB
    max_body_bytes = (payload_mb or UNLIMITED_PAYLOAD_MB) * MB
    listener, worker_count = find_listener(os.environ), workers.read_worker_count(os.environ)
    batching = read_settings(os.environ)
    with ExitStack() as cleanup:
        if is_multi_model(os.environ):
            source = make_multi_model_source(find_model_source, layout, os.environ, cleanup)
        else:
            source = find_model_source(layout, os.environ, cleanup)
        worker_count = min(worker_count, source.max_workers or worker_count)
        metrics, failures = Metrics(source.labels), workers.FailurePipe()
        service = Service(metrics, max_body_bytes=max_body_bytes, worker_count=worker_count)
        settings = ListenerSettings(
            network.address, port, network.socket_path, worker_count, workers.raise_connection_limit()
        )
        _log_start(source.labels, settings)
        gc.freeze()  # a collection of these objects would take time, and copy memory pages that workers share
        start_application = functools.partial(_start_application, source, service, failures, batching)
        workers.run(listener, start_application, metrics, failures, settings)


def _start_application(
    source: ModelSource, service: Service, failures: workers.FailurePipe, batching: BatchSettings
) -> Dispatcher:
    """Load the model in a worker and return the application that answers the worker's requests."""
    service.metrics.claim_worker_row()

    @functools.cache
    def make_fallback() -> FallbackHandler:
        # Imported at the first use, because the import delays the start, and most endpoints never need it.
        from .flask_routes import as_fallback_handler, create_app

        return as_fallback_handler(create_app(service))

    def load_in_background() -> None:
        # this call imports Flask before modules of the user's folder, such as click.py, can shadow modules of Flask
        make_fallback()
        service.set_model(source.load())

    if source.loads_in_background:
        workers.run_in_background(load_in_background, failures)
    else:
        service.set_model(source.load())
    return Dispatcher(
        service,
        lambda head: make_fallback()(head),
        queue_size=source.queue_size,
        route_prefix=source.route_prefix,
        batching=batching,
        threads=source.threads,
    )


def _log_start(labels: Mapping[str, str], settings: ListenerSettings) -> None:
    model = ", ".join(f"{name} {value}" for name, value in labels.items())
    place = settings.socket_path or f"port {settings.port}"
    start_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    # this time includes the imports
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / os.sysconf("SC_CLK_TCK")
    logger.info("serving %s on %s with %d workers, after %.2f s", model, place, settings.workers, seconds)
