"""The plan of a training job: its hosts, channels and configuration files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microjobs import contract
from microjobs.contract import Layout, ResourceConfig, TrainingEnvironment
from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.lifecycle.job import JobHandle
from microjobs_orchestrator.local.resources.training.channels import PIPE, Channel
from microjobs_orchestrator.local.resources.training.checkpoints import Checkpoints
from microjobs_orchestrator.local.runtimes.base import HostPlan, Input, Pipe, Plan


def host_names(job: JobHandle) -> tuple[str, ...]:
    return tuple(f"algo-{number + 1}" for number in range(job.request["ResourceConfig"]["InstanceCount"]))


def make_plan(job: JobHandle, channels: Sequence[Channel], checkpoints: Checkpoints, folder: Path) -> Plan:
    """Return the plan of a job, with its inputs and configuration files in a new folder."""
    data = [(channel, channel.find(job.context.store)) for channel in channels]
    names = host_names(job)
    hosts = []
    for index, name in enumerate(names):
        folders = [
            channel.folder(objects, len(names), index, folder / "inputs" / name / channel.name)
            for channel, objects in data
            if channel.mode != PIPE
        ]
        folders += checkpoints.inputs(folder / "checkpoints" / name)
        pipes = [channel.pipe(objects, len(names), index) for channel, objects in data if channel.mode == PIPE]
        files = _write_files(job, channels, checkpoints, folder / "files" / name, name)
        hosts.append(_plan_host(job, name, files, tuple(folders), tuple(pipes)))
    return Plan(job.plan_name, tuple(hosts), _is_isolated(job))


def _is_isolated(job: JobHandle) -> bool:
    return bool(job.request.get("EnableNetworkIsolation", False))


def _plan_host(job: JobHandle, name: str, files: Path, folders: tuple[Input, ...], pipes: tuple[Pipe, ...]) -> HostPlan:
    algorithm, context = job.request["AlgorithmSpecification"], job.context
    entrypoint = algorithm.get("ContainerEntrypoint")
    # SageMaker runs `train` unless the request has an entry point or arguments.
    arguments = algorithm.get("ContainerArguments", [] if entrypoint else ["train"])
    instance_type = job.request["ResourceConfig"]["InstanceType"]
    return HostPlan(
        name=name,
        image=context.image(algorithm["TrainingImage"]),
        files=files,
        inputs=folders,
        pipes=pipes,
        entrypoint=tuple(entrypoint) if entrypoint else None,
        arguments=tuple(arguments),
        environment=_environment(job),
        limits=context.limits(instance_type),
        gpus=instances.has_gpus(instance_type),
    )


def _environment(job: JobHandle) -> dict[str, str]:
    access = {} if _is_isolated(job) else job.context.access()
    variables: dict[str, Any] = {**access, **job.request.get("Environment", {})}
    return TrainingEnvironment(job.name, job.arn, job.context.settings.region, variables).variables()


def _write_files(
    job: JobHandle, channels: Sequence[Channel], checkpoints: Checkpoints, folder: Path, host: str
) -> Path:
    """Write the configuration files and empty folders of one host."""
    layout = Layout(folder)
    contract.write_hyperparameters(layout, job.request.get("HyperParameters", {}))
    contract.write_input_data_config(layout, {channel.name: channel.described() for channel in channels})
    instance_type = job.request["ResourceConfig"]["InstanceType"]
    contract.write_training_resource_config(layout, ResourceConfig(host, host_names(job), instance_type))
    if checkpoints.folder is not None:
        contract.write_checkpoint_config(layout, checkpoints.folder)
    for made in (layout.input_data, layout.model, layout.output_data):
        made.mkdir(parents=True, exist_ok=True)
    return folder
