"""Training jobs."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microjobs import contract
from microjobs.contract import Layout, ResourceConfig, TrainingEnvironment
from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.lifecycle import inputs, outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.group import Interruption, Outcome, Why, last_states
from microjobs_orchestrator.local.lifecycle.job import LAYOUT, Job
from microjobs_orchestrator.local.lifecycle.sync import Sync
from microjobs_orchestrator.local.resources.training.attempts import Attempts, Limits
from microjobs_orchestrator.local.resources.training.channels import PIPE, channels
from microjobs_orchestrator.local.resources.training.create import CREATED
from microjobs_orchestrator.local.resources.training.interruptions import Watch
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.training.metrics import Metrics
from microjobs_orchestrator.local.resources.training.secondary_status import enter_status
from microjobs_orchestrator.local.runtimes.base import Host, HostPlan, Input, Line, Pipe, Plan
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.store import StoredObject
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

STARTED = "StartMoment"
"""A member of descriptions as `Moment` stores it; no answer has it."""

GIVEN_UP = "MetricsGivenUp"
"""A member of descriptions with the names of metrics; no answer has it, so it stays with the server."""


class TrainingJob(Job):
    kind = TRAINING_JOB.arn_type

    def __init__(self, context: Context, record: Record) -> None:
        super().__init__(context, record)
        given_up = record.description.get(GIVEN_UP, ())
        definitions = self.request["AlgorithmSpecification"].get("MetricDefinitions", [])
        self.metrics = Metrics(definitions, self._note_metric, given_up)
        self._transitions = list(record.description["SecondaryStatusTransitions"])
        self._creation = Moment.read(record.description.get(CREATED), record.created)
        start: float | None = record.description.get("TrainingStartTime")
        self._started = None if start is None else Moment.read(record.description.get(STARTED), start)
        self._attempts = Attempts.of(record.description)
        self._limits = Limits.of(self.request)
        self._channels = channels(self.request)
        self._checkpoints: Sync | None = None
        self._watch: Watch | None = None

    @property
    def image_uri(self) -> str:
        return str(self.request["AlgorithmSpecification"]["TrainingImage"])

    @property
    def _hosts(self) -> tuple[str, ...]:
        return tuple(f"algo-{number + 1}" for number in range(self.request["ResourceConfig"]["InstanceCount"]))

    def preparing(self) -> None:
        self._enter("Downloading")

    def plan(self, folder: Path) -> Plan:
        found = [(channel, channel.find(self.context.store)) for channel in self._channels]
        hosts = []
        for index, name in enumerate(self._hosts):
            place = folder / "inputs" / name
            folders = [
                channel.folder(data, len(self._hosts), index, place / channel.name)
                for channel, data in found
                if channel.mode != PIPE
            ]
            pipes = [channel.pipe(data, len(self._hosts), index) for channel, data in found if channel.mode == PIPE]
            if checkpoints := self._checkpoint_input(folder / "checkpoints" / name):
                folders.append(checkpoints)
            hosts.append(self._host(name, self._files(folder / "files" / name, name), tuple(folders), tuple(pipes)))
        return Plan(self.plan_name, tuple(hosts), self._isolated)

    @property
    def _isolated(self) -> bool:
        return bool(self.request.get("EnableNetworkIsolation", False))

    def _host(self, name: str, files: Path, found: tuple[Input, ...], pipes: tuple[Pipe, ...]) -> HostPlan:
        algorithm = self.request["AlgorithmSpecification"]
        entrypoint = algorithm.get("ContainerEntrypoint")
        # `train` is what SageMaker runs; an entry point or arguments of the request stand in its place (facts §2.1).
        arguments = algorithm.get("ContainerArguments", [] if entrypoint else ["train"])
        instance_type = self.request["ResourceConfig"]["InstanceType"]
        access = {} if self._isolated else self.context.access()
        environment = TrainingEnvironment(
            self.name, self.arn, self.context.settings.region, {**access, **self.request.get("Environment", {})}
        )
        return HostPlan(
            name=name,
            image=self.context.image(self.image_uri),
            files=files,
            inputs=found,
            pipes=pipes,
            entrypoint=tuple(entrypoint) if entrypoint else None,
            arguments=tuple(arguments),
            environment=environment.variables(),
            limits=self.context.limits(instance_type),
            gpus=instances.has_gpus(instance_type),
        )

    def _files(self, folder: Path, host: str) -> Path:
        """The configuration files and empty folders that a host finds."""
        layout = Layout(folder)
        contract.write_hyperparameters(layout, self.request.get("HyperParameters", {}))
        contract.write_input_data_config(layout, {channel.name: channel.described() for channel in self._channels})
        instance_type = self.request["ResourceConfig"]["InstanceType"]
        contract.write_training_resource_config(layout, ResourceConfig(host, self._hosts, instance_type))
        if self._checkpoint_folder is not None:
            contract.write_checkpoint_config(layout, self._checkpoint_folder)
        for made in (layout.input_data, layout.model, layout.output_data):
            made.mkdir(parents=True, exist_ok=True)
        return folder

    # --- checkpoints ---

    def _saved(self) -> list[tuple[str, StoredObject]]:
        """The checkpoints in the bucket, of an earlier run or of this one."""
        bucket, prefix = parse_uri(self.request["CheckpointConfig"]["S3Uri"])
        objects = self.context.store.list(bucket, outputs.join(prefix, ""))
        return [(item.key[len(prefix) :].lstrip("/"), item) for item in objects if not item.key.endswith("/")]

    @property
    def _checkpoint_folder(self) -> str | None:
        """Where hosts have their checkpoints; None if the request has no place for them."""
        config = self.request.get("CheckpointConfig")
        return None if config is None else config.get("LocalPath", str(LAYOUT.checkpoints))

    def _checkpoint_input(self, folder: Path) -> Input | None:
        path = self._checkpoint_folder
        return None if path is None else Input(path, inputs.link(self._saved(), folder))

    def _start_sync(self, hosts: Sequence[Host]) -> None:
        if (path := self._checkpoint_folder) is None:
            return
        uri, there = self.request["CheckpointConfig"]["S3Uri"], [name for name, _ in self._saved()]
        folder, store = self.folder / "sync", self.context.store
        self._checkpoints = Sync(store, hosts, path, uri, folder, self.note, deletes=True, there=there)
        self._checkpoints.start()

    # --- while it runs ---

    def resume(self, hosts: Sequence[Host]) -> None:
        for host in self._hosts:  # what an earlier server read is in the log
            lines = (
                Line(event.time / 1000, event.text, event.is_whole)
                for event in self.stream(host).events()
                if not event.is_own
            )
            for line in last_states(lines):
                self.on_line(line)
        if any(channel.mode == PIPE for channel in self._channels):
            self.lose()  # its pipes ended with the earlier server, and so it may have taken a part for the whole
            return
        if self._transitions[-1]["Status"] == "Interrupted":
            self.control.interrupt(Interruption())
        super().resume(hosts)

    def lose(self) -> None:
        if self._limits.spot and self._transitions[-1]["Status"] in ("Interrupted", "Starting", "Downloading"):
            self._guarded(self._take_up)
        else:
            super().lose()

    def _take_up(self) -> None:
        """Go on where an earlier server ended between two attempts: nothing is lost."""
        self._leave("starting over on new hosts", 0.0)
        self._steps()

    @property
    def max_runtime(self) -> int:
        return math.ceil(self._limits.left(self._attempts, self._creation))

    def running(self, hosts: Sequence[Host]) -> float:
        if self._started is None and self.request.get("ProfilerRuleConfigurations"):
            self.note("ProfilerRuleConfigurations has no effect: there is no profiler")
        if self._attempts.since is None:
            self._attempts.since = now = Moment.now()
            self._started = started = self._started or now
            changes: dict[str, Any] = {
                "TrainingStartTime": started.wall,
                STARTED: started.stored(),
                **self._attempts.member(),
            }
            self._enter("Training", **changes)
        self._start_sync(hosts)
        if self._limits.spot:
            self._watch = Watch(self.context.home, self.name, self.control)
            self._watch.start()
        return 0.0  # `max_runtime` is what is left

    def on_line(self, line: Line) -> None:
        self.metrics.read(line.time, line.text.decode(errors="replace"))

    def _note_metric(self, sentence: str) -> None:
        if not any(event.is_own and sentence in event.message for event in self.stream("algo-1").events()):
            self.note(sentence)
        changes: dict[str, Any] = {GIVEN_UP: self.metrics.given_up}
        self.describe(**changes)  # another server shall not try again

    # --- starting over ---

    def interrupted(self) -> None:
        if self._transitions[-1]["Status"] != "Interrupted":
            self._enter("Interrupted")

    def goes_on(self, hosts: Sequence[Host], outcome: Outcome) -> bool:
        self._finish_helpers()
        if self.control.why is not None:
            return False
        if (interruption := outcome.interruption) is not None:
            self._leave("interrupted: starting over on new hosts", interruption.away)
            return True
        failed = outcome.first_failed
        return failed is not None and outcome.exits[failed].lost and self.starts_over(self.failure(hosts, outcome))

    def starts_over(self, reason: str) -> bool:
        if self._attempts.retries >= self._limits.retries:
            return False
        self._attempts.retries += 1
        which = f"{self._attempts.retries} of {self._limits.retries}"
        self._leave(f"{reason}; starting over on new hosts, retry {which}", self._attempts.pause)
        return True

    def _leave(self, why: str, pause: float) -> None:
        """Leave the present hosts, and wait until there may be others."""
        self._attempts.end()
        self.describe(**self._attempts.member())
        self.context.runtime.remove(self.plan_name)
        self.note(why)
        left = self._limits.left(self._attempts, self._creation)
        self.control.pause(min(pause, left))
        if pause >= left:
            self.control.stop(Why.TIME)
        if self.control.why is None:
            self._enter("Starting")

    def _finish_helpers(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.finish()
        checkpoints, self._checkpoints = self._checkpoints, None
        if checkpoints is not None:
            try:
                checkpoints.finish()
            except Exception as error:  # the model, and the reason of a failure, are worth more
                logger.exception("%s: could not save its checkpoints", self.plan_name)
                self.note(f"the last checkpoints could not be saved: {error}")

    # --- its end ---

    def ended(self, hosts: Sequence[Host], outcome: Outcome) -> None:
        if self.was_shut_down():
            self.failed("InternalServerError: the local server was shut down while the job ran")
        elif outcome.first_failed is not None:
            reason = self.failure(hosts, outcome)
            self._collect(hosts, model=False)
            self.failed(reason)
        elif self.control.why is not None:
            self._collect(hosts, model=bool(hosts))
            late = self.control.why is Why.TIME
            self._end("Stopped", self._limits.exceeded(self._attempts, self._creation) if late else "Stopped")
        else:
            self._collect(hosts, model=True)
            self._end("Completed", "Completed")

    def _collect(self, hosts: Sequence[Host], *, model: bool) -> None:
        self._enter("Uploading")
        folder, store = self.folder / "collected", self.context.store
        base = outputs.join(self.request["OutputDataConfig"]["S3OutputPath"], f"{self.name}/output")
        data = outputs.gather(hosts, str(LAYOUT.output_data), folder / "output", self.note)
        if data:
            outputs.upload_archive(store, data, f"{base}/output.tar.gz", folder)
        if not model:
            return
        left = outputs.gather(hosts, str(LAYOUT.model), folder / "model", self.note)
        if self.request["OutputDataConfig"].get("CompressionType") == "NONE":
            outputs.upload(store, left, f"{base}/model")
        else:
            outputs.upload_archive(store, left, f"{base}/model.tar.gz", folder)

    def failed(self, reason: str) -> None:
        try:
            self._finish_helpers()
        except Exception:
            logger.exception("%s: could not save its checkpoints", self.plan_name)
        self._end("Failed", "Failed", FailureReason=reason[:1024])

    def _enter(self, status: str, **changes: Any) -> None:
        members = enter_status(self._transitions, status, time.time())
        self._transitions = members["SecondaryStatusTransitions"]
        self.describe(**members, **changes)

    def _end(self, status: str, secondary: str, **changes: Any) -> None:
        started = self._started
        now = max(time.time(), started.wall if started else 0.0)
        members = enter_status(self._transitions, secondary, now)
        seconds = round(started.elapsed()) if started else 0
        self._attempts.end()
        self.describe(
            status,
            TrainingJobStatus=status,
            **members,
            TrainingStartTime=started.wall if started else None,
            TrainingEndTime=now,
            TrainingTimeInSeconds=max(1, seconds),
            BillableTimeInSeconds=max(1, min(seconds, round(self._attempts.ran))),
            FinalMetricDataList=self.metrics.final(),
            **changes,
        )
