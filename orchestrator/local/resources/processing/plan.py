"""The plan of a processing job: its hosts, inputs and configuration files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs import contract
from microjobs.contract import Layout, ResourceConfig
from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.job import JobHandle
from microjobs_orchestrator.local.resources.processing.create import output_items
from microjobs_orchestrator.local.runtimes.base import HostPlan, Input, Plan
from microjobs_orchestrator.local.s3.reader import StoredObject


def make_plan(job: JobHandle, folder: Path) -> Plan:
    """Return the plan of a job, with its inputs and configuration files in a new folder."""
    sources = [item["S3Input"] for item in job.request.get("ProcessingInputs", [])]
    objects = [inputs.find(job.context.store, source, "processing input") for source in sources]
    names = _host_names(job)
    hosts = []
    for index, name in enumerate(names):
        parts = [_share(source, every, len(names), index) for source, every in zip(sources, objects, strict=True)]
        linked = tuple(
            Input(source["LocalPath"], inputs.link(part, folder / "inputs" / name / str(number)))
            for number, (source, part) in enumerate(zip(sources, parts, strict=True))
        )
        hosts.append(_plan_host(job, name, _write_files(job, folder / "files" / name, name), linked))
    return Plan(job.plan_name, tuple(hosts), _is_isolated(job))


def _share(
    source: Mapping[str, Any], objects: Sequence[tuple[str, StoredObject]], hosts: int, index: int
) -> Sequence[tuple[str, StoredObject]]:
    return inputs.share(objects, source.get("S3DataDistributionType", ""), hosts, index)


def _cluster(job: JobHandle) -> Mapping[str, Any]:
    cluster: Mapping[str, Any] = job.request["ProcessingResources"]["ClusterConfig"]
    return cluster


def _host_names(job: JobHandle) -> tuple[str, ...]:
    return tuple(f"algo-{number + 1}" for number in range(_cluster(job)["InstanceCount"]))


def _is_isolated(job: JobHandle) -> bool:
    return bool(job.request.get("NetworkConfig", {}).get("EnableNetworkIsolation", False))


def _plan_host(job: JobHandle, name: str, files: Path, linked: tuple[Input, ...]) -> HostPlan:
    application, context = job.request["AppSpecification"], job.context
    entrypoint, arguments = application.get("ContainerEntrypoint"), application.get("ContainerArguments")
    # An entry point without arguments: the image's own command is ignored, as Docker does.
    command = tuple(arguments) if arguments else () if entrypoint else None
    access = {} if _is_isolated(job) else context.access()
    instance_type = _cluster(job)["InstanceType"]
    return HostPlan(
        name=name,
        image=context.image(application["ImageUri"]),
        files=files,
        inputs=linked,
        entrypoint=tuple(entrypoint) if entrypoint else None,
        arguments=command,
        environment={**access, **job.request.get("Environment", {})},
        limits=context.limits(instance_type),
        gpus=instances.has_gpus(instance_type),
    )


def _write_files(job: JobHandle, folder: Path, host: str) -> Path:
    layout = Layout(folder)
    contract.write_processing_resource_config(layout, ResourceConfig(host, _host_names(job)))
    contract.write_processing_job_config(layout, job.request, job.arn)
    layout.output.mkdir(parents=True)
    for item in output_items(job.request):
        layout.local(item["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
    return folder
