"""The plan of a processing job: its hosts, inputs and configuration files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs import contract
from microjobs.contract import Layout, ResourceConfig
from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.certificates import make_certificate
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.job import JobHandle, make_host_names
from microjobs_orchestrator.local.runtimes.base import HostPlan, Input, Plan


def make_plan(job: JobHandle, folder: Path) -> Plan:
    """Return the plan of a job, with its inputs and configuration files in a new folder."""
    cluster: Mapping[str, Any] = job.request["ProcessingResources"]["ClusterConfig"]
    is_isolated = bool(job.request.get("NetworkConfig", {}).get("EnableNetworkIsolation", False))
    sources = [item["S3Input"] for item in job.request.get("ProcessingInputs", [])]
    objects_by_source = [inputs.find_objects(job.context.store, source, "processing input") for source in sources]
    names, hosts = make_host_names(cluster["InstanceCount"]), []
    certificate, key = make_certificate(job.name)
    for index, name in enumerate(names):
        linked_inputs = []
        for number, (source, input_objects) in enumerate(zip(sources, objects_by_source, strict=True)):
            share = inputs.select_share(input_objects, source.get("S3DataDistributionType", ""), len(names), index)
            linked_inputs.append(
                Input(source["LocalPath"], inputs.link_objects(share, folder / "inputs" / name / str(number)))
            )
        layout = Layout(folder / "files" / name)
        _write_files(job, layout, ResourceConfig(name, names))
        contract.write_job_certificate(layout, certificate, key)  # the job may use Dask, which needs the certificate
        hosts.append(
            _plan_host(job, name, layout.root, linked_inputs, cluster["InstanceType"], is_isolated=is_isolated)
        )
    return Plan(job.plan_name, tuple(hosts), is_isolated)


def _plan_host(
    job: JobHandle, name: str, files: Path, linked_inputs: Sequence[Input], instance_type: str, *, is_isolated: bool
) -> HostPlan:
    application, context = job.request["AppSpecification"], job.context
    entrypoint = application.get("ContainerEntrypoint")
    # As in Docker, a request with an entry point but without arguments does not use the image's own arguments.
    arguments = application.get("ContainerArguments", () if entrypoint else None)
    access_variables = {} if is_isolated else context.make_access_variables()
    return HostPlan(
        name=name,
        image=context.resolve_image(application["ImageUri"]),
        files=files,
        inputs=tuple(linked_inputs),
        entrypoint=tuple(entrypoint) if entrypoint else None,
        arguments=None if arguments is None else tuple(arguments),
        environment={**access_variables, **job.request.get("Environment", {})},
        default_variables={} if is_isolated else context.make_package_variables(),
        limits=context.find_host_limits(instance_type),
        has_gpus=instances.has_gpus(instance_type),
    )


def _write_files(job: JobHandle, layout: Layout, resources: ResourceConfig) -> None:
    contract.write_processing_resource_config(layout, resources)
    contract.write_processing_job_config(layout, job.request, job.arn)
    layout.output.mkdir(parents=True)
    for item in list_output_items(job.request):
        layout.resolve_local_path(item["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)


def list_output_items(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the items of ProcessingOutputConfig.Outputs; none if the request has no outputs."""
    return list(request.get("ProcessingOutputConfig", {}).get("Outputs", []))
