"""The texts of programs that the console generates. `tests/clients/test_console_code.py` runs such programs."""

import ast
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microjobs_orchestrator.local.console.code.clients import format_boto3, format_cli
from microjobs_orchestrator.local.console.code.expressions import MAX_LINE_CHARACTERS, format_value
from microjobs_orchestrator.local.console.code.requests import CreateRequest
from microjobs_orchestrator.local.console.code.sdk_v2 import format_sdk_v2
from microjobs_orchestrator.local.console.code.sdk_v2_tables import PROGRAMS
from microjobs_orchestrator.local.console.code.sdk_v3 import format_sdk_v3
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
TRAINING_MEMBERS: dict[str, Any] = {
    "TrainingJobName": "a",
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "RoleArn": "arn:aws:iam::000000000000:role/a",
    "OutputDataConfig": {"S3OutputPath": "s3://a"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}


@given(VALUES)
def test_formatted_value_evaluates_to_the_value(value: Any) -> None:
    text = format_value(value)
    assert ast.literal_eval(text) == value
    assert all(line.isprintable() for line in text.split("\n"))


def test_value_that_fits_is_on_one_line() -> None:
    assert format_value({"a": ["x" * (MAX_LINE_CHARACTERS - 11)]}).count("\n") == 0
    assert format_value({"a": ["x" * (MAX_LINE_CHARACTERS - 10)]}).count("\n") > 0


def test_nan_evaluates_to_nan() -> None:
    assert math.isnan(eval(format_value(math.nan)))  # noqa: S307  the text of a number


def format_training(**members: Any) -> str:
    return format_sdk_v2([CreateRequest(TRAINING_JOB, {**TRAINING_MEMBERS, **members})], PROGRAMS)


def test_sdk_v2_uses_its_classes_for_members_that_they_express() -> None:
    text = format_training(Environment={"A": "b"})
    assert 'environment={"A": "b"}' in text
    assert "sagemaker_client" not in text


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (
            {"DebugHookConfig": {"S3OutputPath": "s3://a"}},
            "# Estimator cannot express DebugHookConfig.S3OutputPath.\n",
        ),
        (
            {"InputDataConfig": [{"ChannelName": "a", "DataSource": {"FileSystemDataSource": {"FileSystemId": "x"}}}]},
            "# Estimator cannot express InputDataConfig.\n",
        ),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1}},
            "# Estimator would send its own value for ResourceConfig.VolumeSizeInGB.\n",
        ),
    ],
)
def test_sdk_v2_uses_its_client_for_requests_that_its_classes_cannot_express(
    members: dict[str, Any], reason: str
) -> None:
    text = format_training(**members)
    assert f"{reason}session.sagemaker_client.create_training_job(\n" in text
    assert "Estimator(" not in text


def test_sdk_v3_names_members_that_its_classes_lack() -> None:
    specification = {"Containers": [{"Image": "image"}]}
    text = format_sdk_v3([CreateRequest(MODEL_PACKAGE, {"InferenceSpecification": specification})])
    assert "# The resource classes of the SDK do not support InferenceSpecification.\n" in text
    assert "session.sagemaker_client.create_model_package(" in text


def test_definition_of_a_pipeline_is_a_value_in_programs_and_text_in_commands() -> None:
    request = CreateRequest(PIPELINE, {"PipelineName": "a", "PipelineDefinition": '{"Steps": []}'})
    arguments = [request], "http://127.0.0.1:1", "us-east-1"
    assert 'PipelineDefinition=json.dumps({"Steps": []})' in format_boto3(*arguments)
    assert '"PipelineDefinition": "{\\"Steps\\": []}"' in format_cli(*arguments)
