"""Experiments, experiment trials and trial components, and the components of jobs."""

from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.resources.experiments import associations
from tests.local.resources.tracking import Tracking
from tests.local.security.families import BASE_MEMBERS
from tests.polling import wait_until

TIME = 1_767_268_800.0
"""2026-01-01T12:00:00 in UTC."""


def test_experiment_has_its_name_as_display_name_and_is_updated(tracking: Tracking) -> None:
    tracking.call("CreateExperiment", ExperimentName="e", Description="d")
    tracking.call("UpdateExperiment", ExperimentName="e", Description="new")
    description = tracking.call("DescribeExperiment", ExperimentName="e")
    assert (description["DisplayName"], description["Description"]) == ("e", "new")


def test_second_experiment_with_the_same_name_is_refused(tracking: Tracking) -> None:
    """The SDK searches the error message for `already exists`."""
    tracking.call("CreateExperiment", ExperimentName="e")
    with pytest.raises(ValidationError, match="already exists"):
        tracking.call("CreateExperiment", ExperimentName="e")


def test_trials_and_components_are_listed_by_their_relations(tracking: Tracking) -> None:
    tracking.add_trial("t1", "e1", "c1", "shared")
    tracking.add_trial("t2", "e1", "c2", "shared")
    tracking.add_trial("t3", "e2", "c3")
    list_names = tracking.list_names
    assert list_names("Trial", ExperimentName="e1", SortBy="Name", SortOrder="Ascending") == ["t1", "t2"]
    assert set(list_names("Trial", TrialComponentName="shared")) == {"t1", "t2"}
    assert list_names("Trial", TrialComponentName="c3", ExperimentName="e2") == ["t3"]
    assert list_names("Trial", TrialComponentName="c3", ExperimentName="e1") == []
    assert set(list_names("TrialComponent", TrialName="t2")) == {"c2", "shared"}
    assert set(list_names("TrialComponent", ExperimentName="e1")) == {"c1", "c2", "shared"}
    assert list_names("Experiment", SortBy="Name") == ["e2", "e1"]


def test_component_is_in_a_limited_number_of_trials(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associations, "MAX_TRIALS", 2)
    tracking.add_trial("t1", "e", "c")
    tracking.add_trial("t2", "e", "c")
    tracking.add_trial("t3", "e")
    with pytest.raises(ServiceError, match="Trial component c is in 2 trials already") as error:
        tracking.call("AssociateTrialComponent", TrialComponentName="c", TrialName="t3")
    assert error.value.code == "ResourceLimitExceeded"
    tracking.call("AssociateTrialComponent", TrialComponentName="c", TrialName="t2")  # a repeated request is accepted
    assert set(tracking.list_names("Trial", TrialComponentName="c")) == {"t1", "t2"}


def test_lists_have_pages(tracking: Tracking) -> None:
    tracking.add_trial("t", "e", "c1", "c2", "c3")
    first_page = tracking.call("ListTrialComponents", TrialName="t", MaxResults=2, SortBy="Name", SortOrder="Ascending")
    assert [item["TrialComponentName"] for item in first_page["TrialComponentSummaries"]] == ["c1", "c2"]
    names = tracking.list_names(
        "TrialComponent", TrialName="t", NextToken=first_page["NextToken"], SortBy="Name", SortOrder="Ascending"
    )
    assert names == ["c3"]


def test_update_of_a_component_merges_and_removes_parameters(tracking: Tracking) -> None:
    parameters = {"a": {"NumberValue": 1.0}, "b": {"StringValue": "x"}}
    tracking.call("CreateTrialComponent", TrialComponentName="c", Parameters=parameters)
    tracking.call(
        "UpdateTrialComponent",
        TrialComponentName="c",
        Parameters={"c": {"NumberValue": 3.0}},
        ParametersToRemove=["a"],
        OutputArtifacts={"model": {"Value": "s3://b/m"}},
        Status={"PrimaryStatus": "Completed"},
        EndTime=TIME,
    )
    description = tracking.describe("c")
    assert description["Parameters"] == {"b": {"StringValue": "x"}, "c": {"NumberValue": 3.0}}
    assert (description["OutputArtifacts"], description["EndTime"]) == ({"model": {"Value": "s3://b/m"}}, TIME)
    assert description["Status"] == {"PrimaryStatus": "Completed"}


def test_resource_with_associations_cannot_be_deleted(tracking: Tracking) -> None:
    tracking.add_trial("t", "e", "c")
    with pytest.raises(ValidationError, match="Trial component c is in trial t: disassociate it first"):
        tracking.call("DeleteTrialComponent", TrialComponentName="c")
    with pytest.raises(ValidationError, match="Trial t has trial components"):
        tracking.call("DeleteTrial", TrialName="t")
    with pytest.raises(ValidationError, match="Experiment e has trials"):
        tracking.call("DeleteExperiment", ExperimentName="e")
    tracking.call("DisassociateTrialComponent", TrialComponentName="c", TrialName="t")
    for noun, name in (("TrialComponent", "c"), ("Trial", "t"), ("Experiment", "e")):
        tracking.call(f"Delete{noun}", **{f"{noun}Name": name})
    assert tracking.list_names("Experiment") == []


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("CreateTrial", {"TrialName": "t", "ExperimentName": "absent"}),
        ("DescribeTrial", {"TrialName": "absent"}),
        ("DescribeTrialComponent", {"TrialComponentName": "absent"}),
        ("AssociateTrialComponent", {"TrialComponentName": "absent", "TrialName": "t"}),
        ("ListTrials", {"ExperimentName": "absent"}),
    ],
)
def test_missing_resource_is_not_found(tracking: Tracking, operation: str, members: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match="absent does not exist") as error:
        tracking.call(operation, **members)
    assert error.value.code == "ResourceNotFound"


def test_metrics_of_a_component_are_summarized(tracking: Tracking) -> None:
    tracking.call("CreateTrialComponent", TrialComponentName="c")
    data = [
        {"MetricName": "loss", "Value": value, "Timestamp": TIME + value, "Step": int(value)} for value in (1.0, 3.0)
    ]
    tracking.metrics.batch_put_metrics({"TrialComponentName": "c", "MetricData": data})
    (description,) = tracking.describe("c")["Metrics"]
    assert {name: description[name] for name in ("MetricName", "Min", "Max", "Last", "Count", "Avg", "StdDev")} == {
        "MetricName": "loss",
        "Min": 1.0,
        "Max": 3.0,
        "Last": 3.0,
        "Count": 2,
        "Avg": 2.0,
        "StdDev": 1.0,
    }


def test_components_are_found_by_experiment_and_parameter(tracking: Tracking) -> None:
    tracking.add_trial("t", "e", "c1", "c2")
    tracking.call("UpdateTrialComponent", TrialComponentName="c2", Parameters={"rate": {"NumberValue": 0.5}})
    filters = [
        {"Name": "Parents.ExperimentName", "Operator": "Equals", "Value": "e"},
        {"Name": "Parameters.rate", "Operator": "GreaterThan", "Value": "0.4"},
    ]
    response = tracking.call("Search", Resource="ExperimentTrialComponent", SearchExpression={"Filters": filters})
    (component,) = [result["TrialComponent"] for result in response["Results"]]
    assert component["TrialComponentName"] == "c2"
    assert component["Parents"] == [{"TrialName": "t", "ExperimentName": "e"}]


# --- jobs ---


def start_job(tracking: Tracking, **config: str) -> None:
    request = {**BASE_MEMBERS["CreateTrainingJob"], "TrainingJobName": "j", "ExperimentConfig": config}
    channels = [
        {
            "ChannelName": "train",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in"}},
        }
    ]
    tracking.call(
        "CreateTrainingJob",
        **{**request, "InputDataConfig": channels, "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"}},
    )


def test_job_of_a_trial_has_a_component(tracking: Tracking) -> None:
    tracking.add_trial("t", "e")
    start_job(tracking, ExperimentName="e", TrialName="t", TrialComponentDisplayName="first")
    assert tracking.list_names("TrialComponent", TrialName="t") == ["j-aws-training-job"]
    description = tracking.describe("j-aws-training-job")
    assert (description["DisplayName"], description["Source"]) == (
        "first",
        {"SourceArn": format_arn("training-job/j"), "SourceType": "SageMakerTrainingJob"},
    )
    assert description["Parameters"]["epochs"] == {"NumberValue": 1.0}
    assert description["InputArtifacts"]["train"] == {"Value": "s3://bucket/in"}
    assert description["OutputArtifacts"]["SageMaker.ModelArtifact"] == {
        "Value": "s3://bucket/out/j/output/model.tar.gz"
    }
    names_by_source = tracking.list_names("TrialComponent", SourceArn=format_arn("training-job/j"))
    assert names_by_source == ["j-aws-training-job"]
    ended_statuses = ("Failed", "Stopped", "Completed")
    wait_until(lambda: tracking.call("DescribeTrainingJob", TrainingJobName="j")["TrainingJobStatus"] in ended_statuses)
    job = tracking.call("DescribeTrainingJob", TrainingJobName="j")
    assert tracking.describe("j-aws-training-job")["Status"] == {
        "PrimaryStatus": job["TrainingJobStatus"],
        **({"Message": job["FailureReason"]} if "FailureReason" in job else {}),
    }


def test_job_without_a_trial_gets_its_own_trial(tracking: Tracking) -> None:
    tracking.call("CreateExperiment", ExperimentName="e")
    start_job(tracking, ExperimentName="e")
    (trial,) = tracking.list_names("Trial", ExperimentName="e")
    assert tracking.list_names("TrialComponent", TrialName=trial) == ["j-aws-training-job"]
    assert tracking.call("DescribeTrainingJob", TrainingJobName="j")["ExperimentConfig"] == {"ExperimentName": "e"}


def test_job_of_a_missing_experiment_is_refused(tracking: Tracking) -> None:
    with pytest.raises(ServiceError, match="Experiment absent does not exist"):
        start_job(tracking, ExperimentName="absent")
    assert tracking.list_names("TrialComponent") == []
    assert tracking.call("ListTrainingJobs")["TrainingJobSummaries"] == []
