"""Batch transform. Source: facts §2.5.

Outputs are stored when all objects are done: a job that is stopped stores none. Where objects failed, those of the
others are stored, and the job is Failed.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from microjobs.contract import HostingEnvironment
from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.group import Control, Outcome
from microjobs_orchestrator.local.lifecycle.job import REASON_LIMIT, Job
from microjobs_orchestrator.local.resources.models import model as models
from microjobs_orchestrator.local.resources.models import serving
from microjobs_orchestrator.local.resources.models.serving import StoppedError, Switch
from microjobs_orchestrator.local.resources.transform.create import list_objects
from microjobs_orchestrator.local.resources.transform.feeder import (
    STRATEGIES,
    Feeder,
    Options,
    Output,
    execution_parameters,
)
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, Line, Plan
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.store import StoredObject
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

STARTED = "StartMoment"
"""A member of descriptions as `Moment` stores it; no answer has it."""

LONGEST_SECONDS = 28 * 86_400
NOTED = 100
"""Failed objects that the log tells of."""


class TransformJob(Job):
    """Containers, and a thread that feeds them and ends them."""

    kind = TRANSFORM_JOB.arn_type

    def __init__(self, context: Context, record: Record) -> None:
        super().__init__(context, record)
        self._switch = Switch()
        self.control: Control = self._switch
        self._model: Mapping[str, Any] = self.request["Model"]
        start: float | None = record.description.get("TransformStartTime")
        self._started = None if start is None else Moment.read(record.description.get(STARTED), start)
        self._driver: threading.Thread | None = None
        self._transformed: list[Output] | None = None
        """None until all objects are done."""
        self._reason: str | None = None

    def resume(self, hosts: Sequence[Host]) -> None:  # noqa: ARG002  they are not gone on with
        """Containers that have ended may have done all, and the earlier server had their answers."""
        self.lose()

    def lose(self) -> None:
        """Start over, also without containers: a server that was killed again may have removed them to do so."""
        self._guarded(self._start_over)

    def _start_over(self) -> None:
        self.context.runtime.remove(self.plan_name)
        self._steps()

    @property
    def image_uri(self) -> str:
        uri: str = models.container(self._model)["Image"]
        return uri

    @property
    def max_runtime(self) -> int:
        return LONGEST_SECONDS

    def preparing(self) -> None:
        """A transform job has one status until it ends."""

    def plan(self, folder: Path) -> Plan:
        data = models.fetch(self.context, self._model, folder / "model")
        resources, environment = self.request["TransformResources"], self._environment()
        hosts = tuple(
            serving.host_plan(
                self.context, self._model, name, folder / "files" / name, data, resources["InstanceType"], environment
            )
            for name in (f"algo-{number + 1}" for number in range(resources["InstanceCount"]))
        )
        return Plan(self.plan_name, hosts, serving.is_isolated(self._model))

    def _environment(self) -> dict[str, str]:
        strategies = {request: container for container, request in STRATEGIES.items()}
        hosting = HostingEnvironment(
            batch=True,
            max_payload_mb=self.request.get("MaxPayloadInMB"),
            batch_strategy=strategies.get(self.request.get("BatchStrategy", "")),
            max_concurrent_transforms=self.request.get("MaxConcurrentTransforms") or None,
        )
        return {**self.request.get("Environment", {}), **hosting.variables()}

    # --- while it runs ---

    def running(self, hosts: Sequence[Host]) -> float:
        if self._started is None:
            self._started = Moment.now()
            changes: dict[str, Any] = {"TransformStartTime": self._started.wall, STARTED: self._started.stored()}
            self.describe(**changes)
        self._driver = threading.Thread(target=self._drive, args=(hosts,), name=self.plan_name, daemon=True)
        self._driver.start()
        return self._started.elapsed()

    def on_line(self, line: Line) -> None:
        """Transform jobs have no metrics."""

    def _drive(self, hosts: Sequence[Host]) -> None:
        """Transform all objects, then end the containers."""
        try:
            objects = list_objects(self.context, self.request)
            with ThreadPoolExecutor(len(hosts)) as pool:
                parts = [inputs.share(objects, "ShardedByS3Key", len(hosts), index) for index in range(len(hosts))]
                runs = [pool.submit(self._transform, host, part) for host, part in zip(hosts, parts, strict=True)]
            errors = [error for run in runs if (error := run.exception()) is not None]
            if errors:
                raise min(errors, key=lambda error: isinstance(error, StoppedError))  # the one that stopped the others
            self._transformed = [output for run in runs for output in run.result()]
        except StoppedError:
            pass
        except CannotRunError as error:
            self._reason = f"AlgorithmError: {error}"
        except ServiceError as error:
            self._reason = f"ClientError: {error}"
        except Exception as error:
            logger.exception("%s failed", self.plan_name)
            self._reason = f"InternalServerError: {type(error).__name__}: {error}; see the server's log"
        finally:
            for host in hosts:
                threading.Thread(target=host.stop, args=(serving.GRACE_SECONDS,), daemon=True).start()

    def _transform(self, host: Host, objects: Sequence[tuple[str, StoredObject]]) -> list[Output]:
        """One container's part of the objects."""
        folder = self.folder / "outputs" / host.name
        folder.mkdir(parents=True, exist_ok=True)
        made = [Output(key, item, folder / str(number)) for number, (key, item) in enumerate(objects)]
        try:
            with closing(serving.wait_until_healthy(host, serving.STARTUP_SECONDS, self._switch.changed)) as client:
                options = Options.of(self.request, execution_parameters(client))
                Feeder(client, options, folder, self._switch.changed).feed(made)
        except BaseException:
            self._switch.changed.set()  # the other containers need not go on
            raise
        if self._switch.changed.is_set():
            raise StoppedError
        return made

    # --- its end ---

    def ended(self, hosts: Sequence[Host], outcome: Outcome) -> None:
        self._switch.changed.set()
        if self._driver is not None:
            self._driver.join()
        if self.was_shut_down():
            self.failed("InternalServerError: the local server was shut down while the job ran")
        elif self.control.why is not None:
            self._end("Stopped")
        elif self._transformed is not None:
            self._store(self._transformed)
        elif self._reason is not None:
            self.failed(self._reason)
        else:
            self.failed(self.failure(hosts, outcome))

    def _store(self, transformed: Sequence[Output]) -> None:
        bucket, _ = parse_uri(self.request["TransformOutput"]["S3OutputPath"])
        for output in transformed:
            if output.reason is None:
                try:
                    self.context.store.adopt(bucket, output.key, output.path)
                except ServiceError as error:
                    output.fail(f"ClientError: its output cannot be stored: {error}")
        failed = [output for output in transformed if output.reason is not None]
        for output in failed[:NOTED]:
            self.note(_told(output))
        if failed:
            others = f" ({len(failed) - 1} more objects failed, see the log)" if len(failed) > 1 else ""
            self.failed(f"{_told(failed[0])[: REASON_LIMIT - len(others)]}{others}")
        else:
            self._end("Completed")

    def failed(self, reason: str) -> None:
        self._end("Failed", FailureReason=reason[:REASON_LIMIT])

    def _end(self, status: str, **changes: Any) -> None:
        now = max(time.time(), self._started.wall if self._started else 0.0)
        self.describe(status, TransformJobStatus=status, TransformEndTime=now, **changes)


def _told(output: Output) -> str:
    whose, _, what = (output.reason or "").partition(": ")
    return f"{whose}: s3://{output.item.bucket}/{output.item.key}: {what}"
