"""Trial components of jobs, from the requests and descriptions of the jobs.

Sources: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ExperimentConfig.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TrialComponentSource.html
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.experiments import associations
from microjobs_orchestrator.local.resources.experiments.kinds import EXPERIMENT, TRIAL, TRIAL_COMPONENT
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.state import Owner, Record

Members = Mapping[str, Any]

SOURCE_TYPES = {
    TRAINING_JOB.arn_type: "SageMakerTrainingJob",
    PROCESSING_JOB.arn_type: "SageMakerProcessingJob",
    TRANSFORM_JOB.arn_type: "SageMakerTransformJob",
}
"""SourceType of a component, by the kind of its job."""
MAX_PARAMETER_CHARACTERS = 2500
"""Maximum number of characters of a parameter's value."""


def add_job(context: Context, request: Members, add: Callable[[], Record]) -> Record:
    """Add a job. If its ExperimentConfig names an experiment or an experiment trial, also add the component of the job.

    Raise ResourceNotFound if the experiment or the experiment trial does not exist.

    Args:
        add: a function that adds the record of the job, and returns this record.
    """
    if "ExperimentConfig" not in request:
        return add()
    _check_config(context, request["ExperimentConfig"])
    with context.state.transaction():
        job = add()
        _add_component(context, job)
    return job


def _check_config(context: Context, config: Members) -> None:
    for member, kind in (("ExperimentName", EXPERIMENT), ("TrialName", TRIAL)):
        if member in config:
            associations.find_record(context, kind.arn_type, config[member])


def _add_component(context: Context, job: Record) -> None:
    """Add the component of a job whose ExperimentConfig names an experiment or an experiment trial.

    If the ExperimentConfig names only an experiment, also add an experiment trial.
    """
    config: Members = job.request.get("ExperimentConfig", {})
    if "ExperimentName" not in config and "TrialName" not in config:
        return
    name = f"{job.name}-aws-{job.kind}"
    source = {"SourceArn": job.arn, "SourceType": SOURCE_TYPES[job.kind]}
    members = {
        "DisplayName": config.get("TrialComponentDisplayName", name),
        "Source": source,
        "TrialComponentName": name,
    }
    _add_record(context, TRIAL_COMPONENT, members)
    trial = config.get("TrialName")
    if trial is None:
        trial, experiment = f"{name}-trial", config["ExperimentName"]
        members = {"TrialName": trial, "ExperimentName": experiment, "DisplayName": trial}
        _add_record(context, TRIAL, members, Owner(EXPERIMENT.arn_type, experiment))
    associations.associate(context, name, trial)


def _add_record(context: Context, kind: Kind, members: Members, owner: Owner | None = None) -> None:
    """Add an experiment trial or a component for a job. The new record replaces the record that a deleted job with the
    same name has left."""
    name = members[kind.name_member]
    arn = format_arn(f"{kind.arn_type}/{name}", context.settings.region)
    context.state.delete(kind.arn_type, name)
    context.state.add(kind.arn_type, name, arn, "", members, {**members, kind.arn_member: arn}, owner=owner)


def derive_members(context: Context, component: Record) -> dict[str, Any]:
    """Return the members of a component that its job determines; none if it has no job, or the job was deleted."""
    source = component.description.get("Source", {})
    job = context.state.get_by_arn(source["SourceArn"]) if source else None
    if job is None:
        return {}
    description, request = job.description, job.request
    members: dict[str, Any] = {
        "Status": _describe_status(job),
        "Parameters": _list_parameters(request),
        "InputArtifacts": _list_inputs(request),
        "OutputArtifacts": _list_outputs(description),
    }
    for member, names in (
        ("StartTime", ("TrainingStartTime", "ProcessingStartTime", "TransformStartTime")),
        ("EndTime", ("TrainingEndTime", "ProcessingEndTime", "TransformEndTime")),
    ):
        if times := [description[name] for name in names if name in description]:
            members[member] = times[0]
    return members


def _describe_status(job: Record) -> dict[str, str]:
    message = job.description.get("FailureReason")
    return {"PrimaryStatus": job.status, **({"Message": message[:1024]} if message else {})}


def _list_parameters(request: Members) -> dict[str, Any]:
    """Return the hyperparameters, and the parameters that AWS adds: type, number and volume size of the instances."""
    instances = (
        request.get("ResourceConfig")
        or request.get("ProcessingResources", {}).get("ClusterConfig")
        or request.get("TransformResources", {})
    )
    parameters = {name: _make_parameter(value) for name, value in request.get("HyperParameters", {}).items()}
    for name in ("InstanceType", "InstanceCount", "VolumeSizeInGB"):
        if name in instances:
            parameters[f"SageMaker.{name}"] = _make_parameter(instances[name])
    return parameters


def _make_parameter(value: object) -> dict[str, Any]:
    try:
        number = float(str(value))
    except ValueError:
        return {"StringValue": str(value)[:MAX_PARAMETER_CHARACTERS]}
    return {"NumberValue": number} if math.isfinite(number) else {"StringValue": str(value)[:MAX_PARAMETER_CHARACTERS]}


def _list_inputs(request: Members) -> dict[str, Any]:
    artifacts = {}
    for channel in request.get("InputDataConfig", []):
        source = channel["DataSource"].get("S3DataSource", {})
        artifacts[channel["ChannelName"]] = {"MediaType": channel.get("ContentType"), "Value": source.get("S3Uri")}
    for item in request.get("ProcessingInputs", []):
        artifacts[item["InputName"]] = {"Value": item.get("S3Input", {}).get("S3Uri")}
    image = request.get("AlgorithmSpecification", {}).get("TrainingImage")
    image = image or request.get("AppSpecification", {}).get("ImageUri")
    if image:
        artifacts["SageMaker.ImageUri"] = {"Value": image}
    if "TransformInput" in request:
        uri = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        artifacts["SageMaker.TransformInput"] = {"Value": uri}
    return _drop_artifacts_without_values(artifacts)


def _list_outputs(description: Members) -> dict[str, Any]:
    artifacts = {}
    if "ModelArtifacts" in description:
        artifacts["SageMaker.ModelArtifact"] = {"Value": description["ModelArtifacts"]["S3ModelArtifacts"]}
    for output in description.get("ProcessingOutputConfig", {}).get("Outputs", []):
        artifacts[output["OutputName"]] = {"Value": output.get("S3Output", {}).get("S3Uri")}
    if "TransformOutput" in description:
        artifacts["SageMaker.TransformOutput"] = {"Value": description["TransformOutput"]["S3OutputPath"]}
    return _drop_artifacts_without_values(artifacts)


def _drop_artifacts_without_values(artifacts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the artifacts that have a value, without members that are None."""
    return {
        name: {key: value for key, value in artifact.items() if value is not None}
        for name, artifact in artifacts.items()
        if artifact["Value"] is not None
    }
