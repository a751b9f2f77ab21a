"""The server process: creates the server's parts, answers requests until a signal, and stops."""

import ctypes
import fcntl
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial

from microjobs.files import write_text
from microjobs_orchestrator import docker_engine
from microjobs_orchestrator.local import home_lock
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.console.application import make_console
from microjobs_orchestrator.local.console.feed import Feed
from microjobs_orchestrator.local.console_address import make_console_address
from microjobs_orchestrator.local.control import ServerError
from microjobs_orchestrator.local.event_settings import read_targets
from microjobs_orchestrator.local.events.delivery import Deliveries
from microjobs_orchestrator.local.gateway.chain import Gateway, list_interceptors
from microjobs_orchestrator.local.gateway.forward import Forwarder
from microjobs_orchestrator.local.gateway.mlflow import MlflowGateway
from microjobs_orchestrator.local.gateway.origin import ANY_ADDRESS
from microjobs_orchestrator.local.gateway.packages import make_package_interceptor
from microjobs_orchestrator.local.gateway.request_state import AnyService, Interceptor
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import (
    get_default_bucket,
    make_mlflow_token,
    make_packages_token,
    prove_identity,
)
from microjobs_orchestrator.local.lifecycle.context import Context, Settings
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.network_settings import NetworkSettings, read_ca_bundle, read_docker_proxies
from microjobs_orchestrator.local.own_images import JOBS_FOLDER
from microjobs_orchestrator.local.package_cache import PackageCache
from microjobs_orchestrator.local.protocols.results import Service
from microjobs_orchestrator.local.resources.event_recorder import EventRecorder
from microjobs_orchestrator.local.resources.mlflow.connector_finder import make_connector_finder
from microjobs_orchestrator.local.resources.mlflow.registration import make_registrar
from microjobs_orchestrator.local.resources.operation_calls import OperationCaller
from microjobs_orchestrator.local.resources.operations import Operations, get_runnable_makers_by_kind, load_operations
from microjobs_orchestrator.local.resources.training import interruptions
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Runtime
from microjobs_orchestrator.local.runtimes.choose import choose_runtime
from microjobs_orchestrator.local.runtimes.process.programs import ProcessPrograms
from microjobs_orchestrator.local.s3.service import S3
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.server_addresses import (
    ALL_ADDRESSES,
    LOOPBACK,
    MACHINE_NAMES,
    listen,
    listen_for_jobs,
)
from microjobs_orchestrator.local.services import sts
from microjobs_orchestrator.local.services.alarms import AlarmOperations
from microjobs_orchestrator.local.services.autoscaling.scaler import Scaler
from microjobs_orchestrator.local.services.autoscaling.service import ApplicationAutoScaling
from microjobs_orchestrator.local.services.cloudwatch import CloudWatch
from microjobs_orchestrator.local.services.ecr import Ecr
from microjobs_orchestrator.local.services.iam import Iam
from microjobs_orchestrator.local.services.logs import Logs
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from microjobs_orchestrator.local.services.sagemaker_metrics import SageMakerMetrics
from microjobs_orchestrator.local.services.sagemaker_runtime import EndpointInvoker
from microjobs_orchestrator.local.services.sqs import Sqs
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.local.topics import Topics

logger = logging.getLogger(__name__)

_M_MMAP_THRESHOLD = -3
_LARGE_BLOCK_BYTES = 1 << 20

POLL_INTERVAL = 0.5
"""Seconds between two checks for the shutdown: `Event.wait` does not return when another thread receives the signal."""

ChooseRuntime = Callable[[str, Home], tuple[Runtime, str]]
"""A function that takes the configured name of the runtime, and the home. It returns the runtime and the reason for the
choice."""


def serve(
    home: Home,
    config: Config,
    *,
    stops_when_unused: bool = False,
    choose: ChooseRuntime | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then stop all jobs and endpoints.

    Args:
        stops_when_unused: whether to stop also when no process holds a lock on the home's `users` file.
        choose: returns the runtime; tests replace it.
        announce: called with an address that opens the console once.

    Raises:
        ServerError: another server uses this home, the port is in use, or the configured engine does not answer.
    """
    _return_large_blocks()
    stop = threading.Event()
    _stop_on_signals(stop)
    with ExitStack() as cleanup:
        choose = choose or partial(choose_runtime, guard_image=config.guard_image)
        try:
            cleanup.enter_context(home_lock.hold(home))
            runtime, reason = choose(config.runtime, home)
        except home_lock.HeldError as error:
            remedy = "`microjobs local status` shows its address, `microjobs local down` stops it"
            raise ServerError(f"another server uses {home.root}: {remedy}") from error
        except CannotRunError as error:
            raise ServerError(str(error)) from error
        cleanup.callback(runtime.close)
        if stops_when_unused:
            threading.Thread(target=_stop_without_users, args=(home, stop), daemon=True).start()
        logger.info("runtime %s: %s", runtime.name, reason)
        port = _start(home, config, runtime, cleanup)
        url = f"http://{LOOPBACK}:{port}"
        address = {"url": url, "region": config.region, "runtime": runtime.name, "why": reason, "pid": os.getpid()}
        cleanup.callback(home.server_file.unlink, missing_ok=True)
        write_text(home.server_file, json.dumps(address))
        logger.info("serving %s at %s; buckets are in %s", home.root, url, home.buckets)
        announce(make_console_address(url, home.server_key(), home.root, os.getpid()))
        while not stop.wait(POLL_INTERVAL):
            pass
        logger.info("stopping jobs and endpoints")


def _stop_on_signals(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # with `nohup`, SIGHUP is ignored
            signal.signal(number, lambda *_: stop.set())


def _return_large_blocks() -> None:
    """Let glibc return freed blocks of at least `_LARGE_BLOCK_BYTES` to the system, such as bodies of large requests.

    By default, glibc raises this threshold when it frees the first block of this size, and keeps later blocks in the
    threads' arenas.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # macOS has no mallopt; in musl, it has no effect
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def _stop_without_users(home: Home, stop: threading.Event) -> None:
    """Stop the server when no process holds a lock on the home's `users` file."""
    with home.users.open("w") as users:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(POLL_INTERVAL)
        stop.set()
        # this process holds the lock until it ends; then the next user gets the lock, and starts a server
        threading.Event().wait()


def _start(home: Home, config: Config, runtime: Runtime, cleanup: ExitStack) -> int:
    """Create the server's parts and start to serve; return the port."""
    home.set_credentials(os.environ)
    client_listener = listen(ALL_ADDRESSES if config.all_addresses else LOOPBACK, config.port)
    port: int = client_listener.bind_addr[1]
    cleanup.callback(client_listener.stop)
    job_access = listen_for_jobs(runtime, config, port, cleanup)
    settings = Settings(
        url=f"http://{job_access.authority}",
        region=config.region,
        aliases=config.images,
        replaces_framework_images=config.framework_images,
        has_limits=config.limits,
        forwarded_port=port if job_access.is_forwarded else None,
        is_reachable=job_access.is_reachable,
        network=_read_network_settings(config, runtime),
        serverless_idle_seconds=config.serverless_idle_seconds,
        autoscaling_speed=config.autoscaling_speed,
        max_instances=config.max_instances,
        deployment_speed=config.deployment_speed,
        functions=config.functions,
    )
    state, store = State(home.state), ObjectStore(home)
    cleanup.callback(state.close)
    cleanup.callback(store.close)
    metrics = MetricStore(home.metrics)
    cleanup.callback(metrics.close)
    # Callbacks run in reverse order. This second callback of each listener stops the listener before the stores are
    # closed, because requests use the stores.
    for listener in (client_listener, *job_access.listeners):
        cleanup.callback(listener.stop)
    cleanup.callback(state.queues.close)
    bucket = get_default_bucket(config.region)
    if not store.has_bucket(bucket):
        store.create_bucket(bucket)
    programs = ProcessPrograms(home, JOBS_FOLDER)
    context = Context(home, state, store, LogStore(home.logs), metrics, runtime, settings, programs)
    registry = Registry(context)
    scaler = Scaler(context, OperationCaller(context, registry).call)
    services, all_operations = _create_all_services(context, registry, scaler), load_operations(context, registry)
    mlflow = MlflowGateway(
        make_connector_finder(context),
        context.ui_sessions,
        make_mlflow_token(home.server_key()),
        config.region,
        make_registrar(context),
    )
    interceptors = _create_interceptors(context, registry, services, config, mlflow)
    feed = Feed()
    state.on_change, context.logs.on_line, metrics.on_points = feed.publish, feed.publish_line, feed.publish_points
    _deliver_events(state, all_operations, config, cleanup)
    registry.recover(get_runnable_makers_by_kind(all_operations))
    cleanup.callback(registry.shut_down)
    cleanup.callback(scaler.close)
    scaler.start()
    cleanup.callback(programs.close)
    cleanup.callback(context.mlflow_connectors.close)
    cleanup.callback(feed.close)
    client_listener.wsgi_app = Gateway(
        [make_console(home, services, feed, context.logs, state).intercept, mlflow.answer_page, *interceptors]
    )
    for listener in job_access.listeners:
        listener.wsgi_app = Gateway(interceptors)
    for listener in (client_listener, *job_access.listeners):
        threading.Thread(target=listener.serve, daemon=True).start()
    return port


def _deliver_events(state: State, all_operations: Sequence[Operations], config: Config, cleanup: ExitStack) -> None:
    """Record events if the configuration has targets, and deliver those that an earlier server has not delivered."""
    targets = read_targets(config.events)
    deliveries = Deliveries(state.outbox, state.queues, targets)
    cleanup.callback(deliveries.close)
    state.publish = Topics(state.outbox, targets, deliveries.notify).publish
    if targets:
        state.record_events = EventRecorder(all_operations, targets, config.region, deliveries.notify).record


def _read_network_settings(config: Config, runtime: Runtime) -> NetworkSettings:
    proxies = config.proxies
    if not proxies and runtime.name == "docker":
        proxies = read_docker_proxies(docker_engine.find_address(os.environ))
    return NetworkSettings(proxies, read_ca_bundle(config.ca_bundle))


def create_services(
    context: Context, registry: Registry, on_registered_target: Callable[[], None] = lambda: None
) -> Mapping[str, Service]:
    """Return the handlers of all services except S3, by botocore's name of the service.

    Args:
        on_registered_target: called after each registration of a scalable target.
    """
    iam, region = Iam(context.state), context.settings.region
    alarms = AlarmOperations(context.state, context.alarms, region)
    return {
        "sagemaker": SageMaker(context, load_operations(context, registry)).list_handlers(),
        "sagemaker-runtime": EndpointInvoker(context, registry).list_handlers(),
        "sagemaker-metrics": SageMakerMetrics(context.state, context.metrics).list_handlers(),
        "logs": Logs(context.logs, region).list_handlers(),
        "cloudwatch": {**CloudWatch(context.metrics).list_handlers(), **alarms.list_handlers()},
        "sts": sts.list_handlers(context.home.credentials(), lambda name: str(iam.get_role(name)["RoleId"])),
        "iam": iam.list_handlers(),
        "ecr": Ecr(context.state, region, context.runtime.images).list_handlers(),
        "sqs": Sqs(context.state.queues, context.settings.client_url).list_handlers(),
        "application-autoscaling": ApplicationAutoScaling(context, on_registered_target).list_handlers(),
    }


def _create_all_services(context: Context, registry: Registry, scaler: Scaler) -> Mapping[str, AnyService]:
    return {"s3": S3(context.store, context.settings.region), **create_services(context, registry, scaler.start)}


def _create_interceptors(
    context: Context, registry: Registry, services: Mapping[str, AnyService], config: Config, mlflow: MlflowGateway
) -> Sequence[Interceptor]:
    home, host_names = context.home, {*MACHINE_NAMES, *config.host_names, context.runtime.machine_address}
    if config.all_addresses:
        host_names.add(ANY_ADDRESS)
    prove = partial(prove_identity, home.server_key(), home.root, os.getpid())
    own_operations = {interruptions.PATH: partial(interruptions.interrupt, registry)}
    forwarder = Forwarder(config.services)
    package_cache = PackageCache(home.packages)
    package_cache.remove_partial_files()
    packages = make_package_interceptor(package_cache, make_packages_token(home.server_key()))
    return list_interceptors(
        home.credentials(), services, host_names, prove, forwarder, own_operations, packages, mlflow
    )
