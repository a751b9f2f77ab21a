"""Processing jobs. Source: facts §2.3."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs import contract
from microjobs.contract import Layout, ResourceConfig
from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle import inputs, outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.group import Outcome, Why
from microjobs_orchestrator.local.lifecycle.job import LAYOUT, REASON_LIMIT, Job
from microjobs_orchestrator.local.lifecycle.sync import Sync
from microjobs_orchestrator.local.resources.processing.create import output_items
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.runtimes.base import Host, HostPlan, Input, Line, Plan
from microjobs_orchestrator.local.state import Record

STARTED = "StartMoment"
"""A member of descriptions as `Moment` stores it; no answer has it."""


class ProcessingJob(Job):
    kind = PROCESSING_JOB.arn_type

    def __init__(self, context: Context, record: Record) -> None:
        super().__init__(context, record)
        start: float | None = record.description.get("ProcessingStartTime")
        self._started = None if start is None else Moment.read(record.description.get(STARTED), start)
        self._syncs: list[Sync] = []

    @property
    def image_uri(self) -> str:
        uri: str = self.request["AppSpecification"]["ImageUri"]
        return uri

    @property
    def _cluster(self) -> Mapping[str, Any]:
        cluster: Mapping[str, Any] = self.request["ProcessingResources"]["ClusterConfig"]
        return cluster

    @property
    def _hosts(self) -> tuple[str, ...]:
        return tuple(f"algo-{number + 1}" for number in range(self._cluster["InstanceCount"]))

    def preparing(self) -> None:
        """A processing job has one status until it ends."""

    def plan(self, folder: Path) -> Plan:
        sources = [item["S3Input"] for item in self.request.get("ProcessingInputs", [])]
        objects = [inputs.find(self.context.store, source, "processing input") for source in sources]
        hosts = []
        for index, name in enumerate(self._hosts):
            found = []
            for number, (source, every) in enumerate(zip(sources, objects, strict=True)):
                distribution = source.get("S3DataDistributionType", "")
                part = inputs.share(every, distribution, len(self._hosts), index)
                linked = inputs.link(part, folder / "inputs" / name / str(number))
                found.append(Input(source["LocalPath"], linked))
            hosts.append(self._host(name, self._files(folder / "files" / name, name), tuple(found)))
        return Plan(self.plan_name, tuple(hosts), self._isolated)

    @property
    def _isolated(self) -> bool:
        return bool(self.request.get("NetworkConfig", {}).get("EnableNetworkIsolation", False))

    def _host(self, name: str, files: Path, found: tuple[Input, ...]) -> HostPlan:
        application = self.request["AppSpecification"]
        entrypoint, arguments = application.get("ContainerEntrypoint"), application.get("ContainerArguments")
        # An entry point without arguments: the image's own command is ignored (facts §2.3).
        given = tuple(arguments) if arguments else () if entrypoint else None
        access = {} if self._isolated else self.context.access()
        return HostPlan(
            name=name,
            image=self.context.image(self.image_uri),
            files=files,
            inputs=found,
            entrypoint=tuple(entrypoint) if entrypoint else None,
            arguments=given,
            environment={**access, **self.request.get("Environment", {})},
            limits=self.context.limits(self._cluster["InstanceType"]),
            gpus=instances.has_gpus(self._cluster["InstanceType"]),
        )

    def _files(self, folder: Path, host: str) -> Path:
        layout = Layout(folder)
        contract.write_processing_resource_config(layout, ResourceConfig(host, self._hosts))
        contract.write_processing_job_config(layout, self.request, self.arn)
        layout.output.mkdir(parents=True)
        for item in output_items(self.request):
            layout.local(item["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
        return folder

    def running(self, hosts: Sequence[Host]) -> float:
        if self._started is None:
            self._started = Moment.now()
            changes: dict[str, Any] = {"ProcessingStartTime": self._started.wall, STARTED: self._started.stored()}
            self.describe(**changes)
        for number, item in enumerate(output_items(self.request)):
            output = item["S3Output"]
            if output["S3UploadMode"] == "Continuous":
                folder, path = self.folder / "sync" / str(number), output["LocalPath"]
                sync = Sync(self.context.store, hosts, path, output["S3Uri"], folder, self.note, deletes=False)
                sync.start()
                self._syncs.append(sync)
        return self._started.elapsed()

    def on_line(self, line: Line) -> None:
        """Processing jobs have no metrics."""

    def ended(self, hosts: Sequence[Host], outcome: Outcome) -> None:
        for sync in self._syncs:
            sync.finish()
        message = self._message(hosts)
        if self.was_shut_down():
            self.failed("InternalServerError: the local server was shut down while the job ran")
        elif outcome.first_failed is not None:
            self._end("Failed", ExitMessage=message, FailureReason=self.failure(hosts, outcome))
        elif self.control.why is Why.TIME:
            self._end("Stopped", ExitMessage=message, FailureReason="MaxRuntimeExceeded")
        elif self.control.why is not None:
            self._end("Stopped", ExitMessage=message)
        else:
            self._collect(hosts)
            self._end("Completed", ExitMessage=message)

    def _collect(self, hosts: Sequence[Host]) -> None:
        """Outputs with EndOfJob: all are fetched before the first one is uploaded."""
        at_end = [item for item in output_items(self.request) if item["S3Output"]["S3UploadMode"] != "Continuous"]
        gathered = []
        for number, item in enumerate(at_end):
            folder = self.folder / "collected" / str(number)
            gathered.append(outputs.gather(hosts, item["S3Output"]["LocalPath"], folder, self.note))
        for item, tree in zip(at_end, gathered, strict=True):
            outputs.upload(self.context.store, tree, item["S3Output"]["S3Uri"])

    def _message(self, hosts: Sequence[Host]) -> str | None:
        """All hosts' messages, the first kilobyte of them."""
        found = b"".join(self.read(hosts, LAYOUT.message).values())
        try:
            whole = found.decode()
        except UnicodeDecodeError as error:
            raise ServiceError("ClientError", f"ClientError: the exit message is not UTF-8: {error}") from error
        return whole.encode()[: contract.MESSAGE_LIMIT].decode(errors="ignore") or None

    def failed(self, reason: str) -> None:
        self._end("Failed", FailureReason=reason[:REASON_LIMIT])

    def _end(self, status: str, **changes: Any) -> None:
        now = max(time.time(), self._started.wall if self._started else 0.0)
        self.describe(status, ProcessingJobStatus=status, ProcessingEndTime=now, **changes)
