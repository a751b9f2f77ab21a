"""Trial components of jobs: what their requests and descriptions contain.

Sources: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ExperimentConfig.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TrialComponentSource.html
"""

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
"""SourceType of a component, by the type of the job in ARNs."""
MAX_TEXT = 2500
"""Maximum length of a parameter."""


def add_job(context: Context, request: Members, add: Callable[[], Record]) -> Record:
    """Add a job, and its component if the request has an ExperimentConfig.

    Raise ResourceNotFound if the experiment or the trial does not exist.
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
            associations.find_existing(context, kind.arn_type, config[member])


def _add_component(context: Context, job: Record) -> None:
    """Add the component of a job that has an ExperimentConfig. Without a trial, also add a trial for it."""
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
    """Add a trial or a component for a job. It replaces that of a deleted job with the same name."""
    name = members[kind.name_member]
    arn = format_arn(f"{kind.arn_type}/{name}", context.settings.region)
    context.state.delete(kind.arn_type, name)
    context.state.add(kind.arn_type, name, arn, "", members, {**members, kind.arn_member: arn}, owner=owner)


def describe_job(context: Context, component: Record) -> dict[str, Any]:
    """Return the members of a component that its job determines; none if it has no job, or the job was deleted."""
    source = component.description.get("Source", {})
    job = context.state.get_by_arn(source["SourceArn"]) if source else None
    if job is None:
        return {}
    found, request = job.description, job.request
    members: dict[str, Any] = {
        "Status": _describe_status(job),
        "Parameters": _list_parameters(request),
        "InputArtifacts": _list_inputs(request),
        "OutputArtifacts": _list_outputs(found),
    }
    for member, names in (
        ("StartTime", ("TrainingStartTime", "ProcessingStartTime", "TransformStartTime")),
        ("EndTime", ("TrainingEndTime", "ProcessingEndTime", "TransformEndTime")),
    ):
        if times := [found[name] for name in names if name in found]:
            members[member] = times[0]
    return members


def _describe_status(job: Record) -> dict[str, str]:
    message = job.description.get("FailureReason")
    return {"PrimaryStatus": job.status, **({"Message": message[:1024]} if message else {})}


def _list_parameters(request: Members) -> dict[str, Any]:
    """Return the hyperparameters, and what AWS adds to them: the image and the instances."""
    resources = (
        request.get("ResourceConfig")
        or request.get("ProcessingResources", {}).get("ClusterConfig")
        or request.get("TransformResources", {})
    )
    parameters = {name: _make_parameter(value) for name, value in request.get("HyperParameters", {}).items()}
    for name in ("InstanceType", "InstanceCount", "VolumeSizeInGB"):
        if name in resources:
            parameters[f"SageMaker.{name}"] = _make_parameter(resources[name])
    return parameters


def _make_parameter(value: object) -> dict[str, Any]:
    try:
        number = float(str(value))
    except ValueError:
        return {"StringValue": str(value)[:MAX_TEXT]}
    is_finite = number - number == 0.0
    return {"NumberValue": number} if is_finite else {"StringValue": str(value)[:MAX_TEXT]}


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
    return _drop_missing(artifacts)


def _list_outputs(found: Members) -> dict[str, Any]:
    artifacts = {}
    if "ModelArtifacts" in found:
        artifacts["SageMaker.ModelArtifact"] = {"Value": found["ModelArtifacts"]["S3ModelArtifacts"]}
    for output in found.get("ProcessingOutputConfig", {}).get("Outputs", []):
        artifacts[output["OutputName"]] = {"Value": output.get("S3Output", {}).get("S3Uri")}
    if "TransformOutput" in found:
        artifacts["SageMaker.TransformOutput"] = {"Value": found["TransformOutput"]["S3OutputPath"]}
    return _drop_missing(artifacts)


def _drop_missing(artifacts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the artifacts that have a value, without members that are None."""
    return {
        name: {key: value for key, value in artifact.items() if value is not None}
        for name, artifact in artifacts.items()
        if artifact["Value"] is not None
    }
