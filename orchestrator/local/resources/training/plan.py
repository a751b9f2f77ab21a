"""The plan of a training job: its hosts, channels and configuration files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from microjobs import contract
from microjobs.contract import Layout, ResourceConfig, make_training_variables
from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.lifecycle.job import JobHandle, make_host_names
from microjobs_orchestrator.local.resources.training.channels import PIPE_MODE, Channel
from microjobs_orchestrator.local.resources.training.checkpoints import Checkpoints
from microjobs_orchestrator.local.resources.training.mlflow_run import MlflowRun
from microjobs_orchestrator.local.resources.training.tensorboard import TensorBoard
from microjobs_orchestrator.local.runtimes.base import HostPlan, Input, Pipe, Plan


def make_plan(
    job: JobHandle,
    channels: Sequence[Channel],
    checkpoints: Checkpoints,
    tensorboard: TensorBoard,
    mlflow: MlflowRun,
    folder: Path,
) -> Plan:
    """Write the inputs and the configuration files of a job into a new folder, and return the plan of the job."""
    channel_records = [(channel, channel.find_records(job.context.store)) for channel in channels]
    resources = job.request["ResourceConfig"]
    names, hosts = make_host_names(resources["InstanceCount"]), []
    for index, name in enumerate(names):
        inputs = [
            channel.make_input(records, len(names), index, folder / "inputs" / name / channel.name)
            for channel, records in channel_records
            if channel.mode != PIPE_MODE
        ]
        inputs += checkpoints.make_inputs(folder / "checkpoints" / name)
        pipes = [
            channel.make_pipe(records, len(names), index)
            for channel, records in channel_records
            if channel.mode == PIPE_MODE
        ]
        layout = Layout(folder / "files" / name)
        contract.write_training_resource_config(layout, ResourceConfig(name, names, resources["InstanceType"]))
        _write_files(job, channels, checkpoints, layout)
        if tensorboard.folder is not None:
            layout.resolve_local_path(tensorboard.folder).mkdir(parents=True, exist_ok=True)
        hosts.append(_plan_host(job, name, layout.root, inputs, pipes, _make_access_variables(job, mlflow)))
    return Plan(job.plan_name, tuple(hosts), _is_isolated(job))


def _is_isolated(job: JobHandle) -> bool:
    return bool(job.request.get("EnableNetworkIsolation", False))


def _make_access_variables(job: JobHandle, mlflow: MlflowRun) -> dict[str, str]:
    return {} if _is_isolated(job) else {**job.context.make_access_variables(), **mlflow.make_variables()}


def _plan_host(
    job: JobHandle,
    name: str,
    files: Path,
    inputs: Sequence[Input],
    pipes: Sequence[Pipe],
    access_variables: Mapping[str, str],
) -> HostPlan:
    context, algorithm = job.context, job.request["AlgorithmSpecification"]
    entrypoint, instance_type = algorithm.get("ContainerEntrypoint"), job.request["ResourceConfig"]["InstanceType"]
    # SageMaker runs `train` unless the request has an entry point or arguments.
    arguments = algorithm.get("ContainerArguments", () if entrypoint else ("train",))
    job_variables = make_training_variables(job.name, job.arn, context.settings.region)
    return HostPlan(
        name=name,
        image=context.resolve_image(algorithm["TrainingImage"]),
        files=files,
        inputs=tuple(inputs),
        pipes=tuple(pipes),
        entrypoint=tuple(entrypoint) if entrypoint else None,
        arguments=tuple(arguments),
        environment={**access_variables, **job.request.get("Environment", {}), **job_variables},
        default_variables={} if _is_isolated(job) else context.make_package_variables(),
        limits=context.find_host_limits(instance_type),
        has_gpus=instances.has_gpus(instance_type),
    )


def _write_files(job: JobHandle, channels: Sequence[Channel], checkpoints: Checkpoints, layout: Layout) -> None:
    """Write the files and empty folders that all hosts have."""
    contract.write_hyperparameters(layout, job.request.get("HyperParameters", {}))
    contract.write_input_data_config(layout, {channel.name: channel.to_contract() for channel in channels})
    if checkpoints.folder is not None:
        contract.write_checkpoint_config(layout, checkpoints.folder)
    for folder in (layout.input_data, layout.model, layout.output_data):
        folder.mkdir(parents=True, exist_ok=True)
