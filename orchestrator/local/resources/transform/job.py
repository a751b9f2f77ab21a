"""Batch transform jobs while they run.

Outputs are stored when all objects are transformed: a job that is stopped stores none. If some objects fail, the
outputs of the other objects are stored, and the job fails.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

from microjobs.contract import make_transform_variables
from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.kinds import JobStatus
from microjobs_orchestrator.local.lifecycle import inputs, outputs
from microjobs_orchestrator.local.lifecycle.attempt import Attempt, EndReason, Outcome, remove_plan
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import StopReason
from microjobs_orchestrator.local.lifecycle.job import (
    MAX_REASON_CHARACTERS,
    JobHandle,
    make_failure_reason,
    make_host_names,
)
from microjobs_orchestrator.local.resources.models import serving
from microjobs_orchestrator.local.resources.models.chain import Chain, NamedClient
from microjobs_orchestrator.local.resources.models.containers import list_hosts, list_names
from microjobs_orchestrator.local.resources.models.health import connect_when_healthy
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError
from microjobs_orchestrator.local.resources.transform import captures
from microjobs_orchestrator.local.resources.transform.feeder import (
    STRATEGIES,
    Feeder,
    Output,
    TransformOptions,
    fetch_execution_parameters,
    format_container,
)
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.reader import StoredObject
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

MAX_RUNTIME_SECONDS = 28 * 86_400
"""Time limit in seconds, as on SageMaker: 28 days."""
MAX_NOTES = 100
"""Maximum number of failed objects that the job's log lists."""


class TransformJob:
    """A transform job: one attempt, and a thread that sends objects to the containers, and then stops the
    containers."""

    def __init__(self, context: Context, record: Record) -> None:
        self.job = JobHandle(context, record, TRANSFORM_JOB)
        self.events = self.job.events
        self.plan_name = self.job.plan_name
        self._container_names = list_names(self.job.request["Model"])
        self._transform_thread: threading.Thread | None = None
        self._outputs: list[Output] | None = None
        """None until all objects are transformed."""
        self._failure_reason: str | None = None
        """The reason why the job failed before all objects were transformed. The output of a single object that failed
        has its own reason."""

    def run(self) -> None:
        self.job.run(self._run)

    def recover(self, hosts: Sequence[Host]) -> None:  # noqa: ARG002
        """Run again on new hosts: the responses that the local server received before its restart are lost."""
        remove_plan(self.job.context, self.plan_name)
        self.run()

    @property
    def attempt(self) -> Attempt:
        context, request, open_stream = self.job.context, self.job.request, self.job.open_stream
        count, instance_type = (request["TransformResources"][name] for name in ("InstanceCount", "InstanceType"))
        instances, environment = make_host_names(count), _make_environment(request)
        return serving.make_attempt(
            context, request["Model"], self.plan_name, instances, instance_type, open_stream, environment
        )

    def _run(self) -> None:
        outcome = self.job.run_attempt(self.attempt, (), self.handle_start)
        self.events.stop(StopReason.FINISHED)
        if self._transform_thread is not None:
            self._transform_thread.join()
        self._handle_outcome(outcome)

    # --- while the job runs ---

    def handle_start(self, hosts: Sequence[Host]) -> float:
        """Start to transform; return the seconds that the hosts may run."""
        self.job.store_start()
        elapsed = self.job.compute_elapsed_seconds()
        self._transform_thread = threading.Thread(
            target=self._run_transform, args=(hosts,), name=self.plan_name, daemon=True
        )
        self._transform_thread.start()
        return MAX_RUNTIME_SECONDS - elapsed

    def _run_transform(self, hosts: Sequence[Host]) -> None:
        try:
            self._outputs = self._transform_all(hosts)
        except StoppedError:
            pass
        except UnhealthyError as error:
            self._failure_reason = f"AlgorithmError: {format_container(error.container)}{error}"
        except CannotRunError as error:
            self._failure_reason = f"AlgorithmError: {error}"
        except ServiceError as error:
            self._failure_reason = f"ClientError: {error}"
        except Exception as error:
            logger.exception("%s failed", self.plan_name)
            self._failure_reason = make_failure_reason(error)
        finally:
            self.events.stop(StopReason.FINISHED)

    def _transform_all(self, hosts: Sequence[Host]) -> list[Output]:
        objects = list_objects(self.job.context, self.job.request)
        hosts_by_instance = self._group_hosts(hosts)
        with ThreadPoolExecutor(len(hosts_by_instance)) as pool:
            futures = [
                pool.submit(
                    self._transform,
                    instance,
                    instance_hosts,
                    inputs.select_share(objects, "ShardedByS3Key", len(hosts_by_instance), index),
                )
                for index, (instance, instance_hosts) in enumerate(hosts_by_instance.items())
            ]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            # If a host failed, its error is the cause: the StoppedError of the other hosts follows from it.
            raise min(errors, key=lambda error: isinstance(error, StoppedError))
        return [output for future in futures for output in future.result()]

    def _group_hosts(self, hosts: Sequence[Host]) -> Mapping[str, Sequence[Host]]:
        """Return the hosts of each instance, in the order of the model's containers."""
        hosts_by_name, model = {host.name: host for host in hosts}, self.job.request["Model"]
        return {
            instance: [hosts_by_name[host.name] for host in list_hosts(model, [instance])]
            for instance in make_host_names(self.job.request["TransformResources"]["InstanceCount"])
        }

    def _transform(
        self, instance: str, hosts: Sequence[Host], objects: Sequence[tuple[str, StoredObject]]
    ) -> list[Output]:
        """Transform one instance's share of the objects. Raise StoppedError if the job ends earlier."""
        folder, stopped = self.job.folder / "outputs" / instance, self.events.stopped
        folder.mkdir(parents=True, exist_ok=True)
        outputs = [Output(key, item, folder / str(number)) for number, (key, item) in enumerate(objects)]
        try:
            with ExitStack() as stack:
                clients = connect_when_healthy(hosts, self._container_names, serving.STARTUP_TIMEOUT, stopped)
                for client in clients:
                    stack.enter_context(closing(client))
                options = TransformOptions.read(self.job.request, fetch_execution_parameters(clients[0]))
                senders = [
                    NamedClient(client, name) for client, name in zip(clients, self._container_names, strict=True)
                ]
                Feeder(Chain(senders, folder), options, folder, stopped).feed(outputs)
        except BaseException:
            self.events.stop(StopReason.FINISHED)  # the job fails, so the other containers are stopped
            raise
        if stopped.is_set():
            raise StoppedError
        return outputs

    # --- the end of the job ---

    def _handle_outcome(self, outcome: Outcome) -> None:
        end = self.job.determine_end(outcome)
        if end.end_reason in (EndReason.SHUT_DOWN, EndReason.STOPPED, EndReason.TIMED_OUT):
            self.job.end(end.status, FailureReason=end.failure_reason)
        elif self._outputs is not None:
            self._store(self._outputs)
        else:
            self.job.fail(self._failure_reason or self.job.read_failure_reason(outcome))

    def _store(self, outputs: Sequence[Output]) -> None:
        """Store the outputs. Then complete the job, or fail it if an object or an output failed."""
        bucket, _ = parse_uri(self.job.request["TransformOutput"]["S3OutputPath"])
        for output in outputs:
            if output.reason is None:
                try:
                    self.job.context.store.put(bucket, output.key, output.path)
                except ServiceError as error:
                    output.fail(f"ClientError: its output cannot be stored: {error}")
        failed_outputs = [output for output in outputs if output.reason is not None]
        (first_host, *_) = list_hosts(self.job.request["Model"], ["algo-1"])
        for output in failed_outputs[:MAX_NOTES]:
            self.job.note(_format_reason(output), first_host.stream_suffix)
        if failed_outputs:
            failed_count = f" ({len(failed_outputs) - 1} more failed, see the log)" if len(failed_outputs) > 1 else ""
            self.job.fail(
                f"{_format_reason(failed_outputs[0])[: MAX_REASON_CHARACTERS - len(failed_count)]}{failed_count}"
            )
        else:
            self._complete(outputs)

    def _complete(self, outputs: Sequence[Output]) -> None:
        started = self.job.started.wall if self.job.started else time.time()
        try:
            captures.store_manifests(self.job.context, self.job.request, started, outputs)
        except ServiceError as error:
            self.job.fail(f"ClientError: the manifests of DataCaptureConfig cannot be stored: {error}")
        else:
            self.job.end(JobStatus.COMPLETED)


def list_objects(context: Context, request: Mapping[str, Any]) -> list[tuple[str, StoredObject]]:
    """Return the input objects of a request, each with the key of its output.

    Raise ValidationError if there are no objects, two outputs have the same key, or the bucket cannot be written.
    """
    uri = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    bucket, prefix = parse_uri(request["TransformOutput"]["S3OutputPath"])
    objects = inputs.select_objects(context.store, uri, "transform input")
    keyed_objects = [(outputs.join_key(prefix, f"{path}.out"), stored_object) for path, stored_object in objects]
    context.store.check_writable(bucket, keyed_objects[0][0])
    key, count = Counter(key for key, _ in keyed_objects).most_common(1)[0]
    if count > 1:
        raise ValidationError(f"{count} objects of {uri} would all become {key}: use a prefix that ends with /.")
    return keyed_objects


def _make_environment(request: Mapping[str, Any]) -> dict[str, str]:
    strategies = {in_request: in_container for in_container, in_request in STRATEGIES.items()}
    strategy = strategies.get(request.get("BatchStrategy", ""))
    concurrency = request.get("MaxConcurrentTransforms") or None
    return {
        **request.get("Environment", {}),
        **make_transform_variables(request.get("MaxPayloadInMB"), strategy, concurrency),
    }


def _format_reason(output: Output) -> str:
    prefix, _, reason = (output.reason or "").partition(": ")
    return f"{prefix}: s3://{output.input_object.bucket}/{output.input_object.key}: {reason}"
