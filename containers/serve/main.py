"""Hosting and Batch Transform: an HTTP server for one model."""

import functools
import gc
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import handlers
import workers
from hot import Wsgi, hot
from metrics import Metrics
from microjobs.bundle import ARCHIVE_FILE, MANIFEST_FILE, read_bundle, unpack
from microjobs.contract import HostingEnvironment, Layout
from microjobs.errors import UserError
from models import BundleModel, Model
from service import MB, Service

logger = logging.getLogger("microjobs")

DEFAULT_PAYLOAD_MB = 6
"""What SageMaker's runtime sends at most, and Batch Transform's default."""
UNLIMITED_PAYLOAD_MB = 1024
"""For Batch Transform's MaxPayloadInMB of 0, "no limit": what asynchronous inference allows."""

IN_FLIGHT = 32
"""Requests that one worker takes at a time for a user's own code, running or waiting; one more is answered 503."""


def serve() -> None:
    """Serve the model in the model folder until SIGTERM.

    Raises:
        UserError: the model or the user's code cannot be loaded, or the port cannot be had.
        PlatformError: workers died again and again.
    """
    layout, hosting, number = Layout.from_environment(), _hosting(os.environ), workers.count(os.environ)
    with ExitStack() as cleanup:
        folder = _model_folder(layout, cleanup)
        program = handlers.find(layout, folder, os.environ)
        served = _bundle(folder) if program is None else _handlers(program, folder, os.environ)
        metrics, reason = Metrics(served.labels), workers.Reason()
        service = Service(metrics, limit=_limit(hosting), in_flight=served.in_flight, workers=number)

        flask = functools.cache(functools.partial(_flask, service))

        def load_slowly() -> None:
            flask()  # before the user's modules can stand in for ours of the same name
            service.loaded(served.load())

        def start_worker() -> Wsgi:
            metrics.claim()
            if served.slow:
                workers.in_background(load_slowly, reason)
            else:
                service.loaded(served.load())
            return hot(service, flask)

        what = ", ".join(f"{name} {value}" for name, value in served.labels.items())
        age = _seconds_since_start()
        logger.info("serving %s on port %d with %d workers, after %.2f s", what, hosting.port, number, age)
        gc.freeze()  # what is loaded stays: collecting it again and again would also unshare its pages
        workers.run(start_worker, metrics, reason, port=hosting.port, workers=number, threads=served.threads)


@dataclass(frozen=True)
class Served:
    """What is served: how a worker gets it, and how many requests a worker takes at a time."""

    load: Callable[[], Model]
    slow: bool
    labels: Mapping[str, str]
    in_flight: int
    threads: int


def _bundle(folder: Path) -> Served:
    """A bundle, loaded here before the workers are forked: once for all, and a bad model ends the job at once."""
    bundle = read_bundle(folder)
    model = BundleModel(bundle)
    labels = {"framework": bundle.manifest.framework, "features": str(bundle.manifest.features)}
    # One thread is fastest, and what waits for it does so outside of Python.
    return Served(lambda: model, slow=False, labels=labels, in_flight=1, threads=1)


def _handlers(program: Path, folder: Path, environ: Mapping[str, str]) -> Served:
    """A user's code, loaded in each worker: frameworks with threads of their own do not survive a fork."""
    if (program.parent / "requirements.txt").exists():
        logger.warning("code/requirements.txt is ignored: endpoints may have no network; put packages in the image")

    accept = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "")
    load = functools.partial(handlers.HandlerModel, program, folder, accept)
    # One more thread than requests, so that one is always left for /ping and for saying 503.
    return Served(load, slow=True, labels={"program": program.name}, in_flight=IN_FLIGHT, threads=IN_FLIGHT + 1)


def _flask(service: Service) -> Wsgi:
    # Imported at the first request that needs it: an endpoint should be ready soon, and most never do.
    from application import create

    return create(service)


def _hosting(environ: Mapping[str, str]) -> HostingEnvironment:
    try:
        return HostingEnvironment.read(environ)
    except ValueError as error:
        raise UserError(f"SAGEMAKER_BIND_TO_PORT and SAGEMAKER_MAX_… must be numbers: {error}") from error


def _limit(hosting: HostingEnvironment) -> int:
    """Bytes that a request may have."""
    megabytes = DEFAULT_PAYLOAD_MB if hosting.max_payload_mb is None else hosting.max_payload_mb
    return (megabytes or UNLIMITED_PAYLOAD_MB) * MB


def _model_folder(layout: Layout, cleanup: ExitStack) -> Path:
    """The model folder; where it holds the archive as it was uploaded, a temporary folder with its content."""
    archive = layout.model / ARCHIVE_FILE
    if not archive.is_file() or (layout.model / MANIFEST_FILE).exists():
        return layout.model
    folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="model-"))) / "model"
    unpack(archive, folder)
    return folder


def _seconds_since_start() -> float:
    """The age of this process, the interpreter and imports included."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
