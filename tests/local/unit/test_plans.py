"""Tests of plans, which are made from requests without an engine."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from microjobs.contract import Layout
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import PACKAGES_PATH
from microjobs_orchestrator.local.lifecycle.context import Context, Settings
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.resources.processing import job as processing
from microjobs_orchestrator.local.resources.processing.operations import ProcessingJobOperations
from microjobs_orchestrator.local.resources.training import job as training
from microjobs_orchestrator.local.resources.training.channels import check_channels
from microjobs_orchestrator.local.resources.training.create import create as create_training_job
from microjobs_orchestrator.local.resources.tuning.create import RESOURCE_MEMBERS
from microjobs_orchestrator.local.resources.tuning.create import create as create_tuning_job
from microjobs_orchestrator.local.runtimes.base import Plan, Runtime
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.state import State
from tests.local.clients import make_channel, make_processing_input, make_processing_output
from tests.local.jobs.fake_programs import FakePrograms

Command = tuple[tuple[str, ...] | None, tuple[str, ...] | None]
"""An entry point and arguments. None stands for the value of the image."""


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    home = Home(tmp_path / "home")
    home.create()
    state, store, metrics = State(home.state), ObjectStore(home), MetricStore(home.metrics)
    store.create_bucket("data")
    settings = Settings("http://server", aliases={"a:1": "b:2", "*.amazonaws.com/a:*": "c:3"})
    yield Context(home, state, store, LogStore(home.logs), metrics, cast("Runtime", None), settings, FakePrograms())
    state.close()
    metrics.close()
    store.close()


def read_command(plan: Plan) -> Command:
    return plan.hosts[0].entrypoint, plan.hosts[0].arguments


def make_processing_plan(
    context: Context, folder: Path, members: Mapping[str, Any] | None = None, **application: Any
) -> Plan:
    cluster = {"InstanceCount": 2, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
    request = {
        "ProcessingJobName": "job",
        "AppSpecification": {"ImageUri": "a:1", **application},
        "ProcessingResources": {"ClusterConfig": cluster},
        "RoleArn": "role",
        **(members or {}),
    }
    record = ProcessingJobOperations(context, Registry(context)).add(request)
    return processing.ProcessingJob(context, record).attempt.make_plan(folder)


def make_training_plan(context: Context, folder: Path, **algorithm: Any) -> Plan:
    request = {
        "TrainingJobName": "job",
        "AlgorithmSpecification": {"TrainingImage": "a:1", "TrainingInputMode": "File", **algorithm},
        "OutputDataConfig": {"S3OutputPath": "s3://data/out"},
        "ResourceConfig": {"InstanceCount": 2, "InstanceType": "ml.g5.xlarge", "VolumeSizeInGB": 1},
        "StoppingCondition": {},
        "RoleArn": "role",
    }
    return training.TrainingJob(context, create_training_job(context, request)).attempt.make_plan(folder)


@pytest.mark.parametrize(
    ("application", "expected"),
    [
        ({}, (None, None)),
        ({"ContainerArguments": ["x"]}, (None, ("x",))),
        ({"ContainerEntrypoint": ["e"]}, (("e",), ())),
        ({"ContainerEntrypoint": ["e"], "ContainerArguments": ["x"]}, (("e",), ("x",))),
    ],
)
def test_processing_uses_entrypoint_and_arguments_of_the_request(
    context: Context, tmp_path: Path, application: dict[str, Any], expected: Command
) -> None:
    assert read_command(make_processing_plan(context, tmp_path / "work", **application)) == expected


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ({}, (None, ("train",))),
        ({"ContainerArguments": ["x"]}, (None, ("x",))),
        ({"ContainerEntrypoint": ["e"]}, (("e",), ())),
        ({"ContainerEntrypoint": ["e"], "ContainerArguments": ["x"]}, (("e",), ("x",))),
    ],
)
def test_training_runs_train_by_default(
    context: Context, tmp_path: Path, algorithm: dict[str, Any], expected: Command
) -> None:
    assert read_command(make_training_plan(context, tmp_path / "work", **algorithm)) == expected


def test_gpu_instance_types_use_gpus(context: Context, tmp_path: Path) -> None:
    assert [host.has_gpus for host in make_training_plan(context, tmp_path / "training").hosts] == [True, True]
    assert [host.has_gpus for host in make_processing_plan(context, tmp_path / "processing").hosts] == [False, False]


def test_hosts_install_packages_from_the_server(context: Context, tmp_path: Path) -> None:
    for plan in (
        make_training_plan(context, tmp_path / "training"),
        make_processing_plan(context, tmp_path / "processing"),
    ):
        assert all(PACKAGES_PATH in host.default_variables["PIP_INDEX_URL"] for host in plan.hosts)


def test_hosts_are_named_as_on_sagemaker(context: Context, tmp_path: Path) -> None:
    plan = make_training_plan(context, tmp_path / "work")
    assert (plan.name, [host.name for host in plan.hosts]) == ("training-job/job", ["algo-1", "algo-2"])


@pytest.mark.parametrize(
    ("uri", "local_image"), [("a:1", "b:2"), ("1.dkr.ecr.us-east-1.amazonaws.com/a:9", "c:3"), ("other:1", "other:1")]
)
def test_aliases_name_local_images(context: Context, uri: str, local_image: str) -> None:
    assert context.resolve_image(uri) == local_image


INPUT_PATH, OUTPUT_PATH = str(Layout().processing("in")), str(Layout().processing("out"))
NOT_UNIQUE_MESSAGE = "must be unique; repeated:"


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        (
            [("x", INPUT_PATH), ("y", f"{INPUT_PATH}/./")],
            [],
            f"The LocalPaths of processing inputs {NOT_UNIQUE_MESSAGE} '{INPUT_PATH}'",
        ),
        ([("x", INPUT_PATH), ("x", f"{INPUT_PATH}2")], [], f"InputNames {NOT_UNIQUE_MESSAGE} 'x'"),
        ([], [("o", OUTPUT_PATH), ("o", f"{OUTPUT_PATH}2")], f"OutputNames {NOT_UNIQUE_MESSAGE} 'o'"),
    ],
    ids=["LocalPath", "InputName", "OutputName"],
)
def test_duplicate_paths_and_names_raise(
    inputs: list[tuple[str, str]], outputs: list[tuple[str, str]], reason: str, context: Context
) -> None:
    input_items = [make_processing_input(name, "s3://data/in", path) for name, path in inputs]
    output_items = [make_processing_output(name, "s3://data/out", path) for name, path in outputs]
    request = {
        "ProcessingJobName": "job",
        "ProcessingInputs": input_items,
        "ProcessingOutputConfig": {"Outputs": output_items},
    }
    with pytest.raises(ValidationError, match=re.escape(reason)):
        ProcessingJobOperations(context, Registry(context)).add(request)


def test_output_folder_can_contain_another_output(context: Context, tmp_path: Path) -> None:
    outputs = [
        make_processing_output(name, "s3://data/out", path)
        for name, path in (("inner", f"{OUTPUT_PATH}/in"), ("outer", OUTPUT_PATH))
    ]
    plan = make_processing_plan(context, tmp_path / "work", {"ProcessingOutputConfig": {"Outputs": outputs}})
    assert all(Layout(host.files).resolve_local_path(f"{OUTPUT_PATH}/in").is_dir() for host in plan.hosts)


def test_duplicate_channel_name_raises(context: Context) -> None:
    channels = [make_channel("train", "s3://data/a"), make_channel("train", "s3://data/b")]
    with pytest.raises(ValidationError, match=f"ChannelNames {NOT_UNIQUE_MESSAGE} 'train'"):
        check_channels(
            {"AlgorithmSpecification": {"TrainingInputMode": "File"}, "InputDataConfig": channels}, context.store
        )


@pytest.mark.parametrize("resource_member", RESOURCE_MEMBERS)
def test_tuning_job_describes_members_that_sdks_read(context: Context, resource_member: str) -> None:
    resource_config = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
    request = {
        "HyperParameterTuningJobName": "job",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {"IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "9"}]},
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "a:1",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss: (.*)"}],
            },
            "StaticHyperParameters": {"a": "b"},
            "OutputDataConfig": {"S3OutputPath": "s3://data/out"},
            resource_member: resource_config,
            "StoppingCondition": {},
            "RoleArn": "role",
        },
    }
    description = create_tuning_job(context, request).description["TrainingJobDefinition"]
    assert description["StaticHyperParameters"] == {"a": "b", "_tuning_objective_metric": "loss"}
    assert description["ResourceConfig"] == resource_config
