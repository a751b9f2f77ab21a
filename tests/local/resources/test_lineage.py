"""Lineage: artifacts and associations."""

from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from tests.local.resources.tracking import Tracking

SOURCE = {"SourceUri": "s3://bucket/a.csv", "SourceTypes": [{"SourceIdType": "S3ETag", "Value": "x"}]}


def add_artifact(tracking: Tracking, **members: Any) -> str:
    request = {"ArtifactName": "data", "Source": SOURCE, "ArtifactType": "DataSet", **members}
    return str(tracking.call("CreateArtifact", **request)["ArtifactArn"])


def test_artifact_is_described_changed_and_deleted(tracking: Tracking) -> None:
    arn = add_artifact(tracking, Properties={"a": "1", "b": "2"})
    tracking.call("UpdateArtifact", ArtifactArn=arn, Properties={"c": "3"}, PropertiesToRemove=["a"])
    description = tracking.call("DescribeArtifact", ArtifactArn=arn)
    assert (description["Source"], description["Properties"]) == (SOURCE, {"b": "2", "c": "3"})
    assert tracking.call("DeleteArtifact", Source=SOURCE) == {"ArtifactArn": arn}
    with pytest.raises(ServiceError, match="does not exist"):
        tracking.call("DescribeArtifact", ArtifactArn=arn)


def test_source_identifies_an_artifact(tracking: Tracking) -> None:
    arn = add_artifact(tracking)
    with pytest.raises(ValidationError, match="already exists"):
        add_artifact(tracking, ArtifactName="other")
    assert add_artifact(tracking, Source={"SourceUri": "s3://bucket/b.csv"}) != arn


def test_artifacts_are_listed_by_source_and_type(tracking: Tracking) -> None:
    data_arn = add_artifact(tracking)
    model_arn = add_artifact(tracking, Source={"SourceUri": "s3://bucket/m"}, ArtifactType="Model")

    def list_arns(**filters: Any) -> list[str]:
        return [item["ArtifactArn"] for item in tracking.call("ListArtifacts", **filters)["ArtifactSummaries"]]

    assert list_arns() == [model_arn, data_arn]
    assert list_arns(SourceUri="s3://bucket/a.csv") == [data_arn]
    assert list_arns(ArtifactType="Model", MaxResults=1) == [model_arn]


def test_association_has_the_types_and_names_of_its_source_and_destination(tracking: Tracking) -> None:
    artifact_arn = add_artifact(tracking)
    component_arn = tracking.call("CreateTrialComponent", TrialComponentName="c")["TrialComponentArn"]
    arns = {"SourceArn": artifact_arn, "DestinationArn": component_arn}
    tracking.call("AddAssociation", **arns, AssociationType="ContributedTo")
    (summary,) = tracking.call("ListAssociations", DestinationArn=component_arn)["AssociationSummaries"]
    assert summary.pop("CreationTime") > 0
    assert summary == {
        **arns,
        "AssociationType": "ContributedTo",
        "SourceType": "DataSet",
        "SourceName": "data",
        "DestinationType": "experiment-trial-component",
        "DestinationName": "c",
    }
    with pytest.raises(ValidationError, match="already exists"):
        tracking.call("AddAssociation", **arns)
    tracking.call("DeleteAssociation", **arns)
    assert tracking.call("ListAssociations")["AssociationSummaries"] == []


def test_association_of_a_missing_resource_is_refused(tracking: Tracking) -> None:
    artifact_arn = add_artifact(tracking)
    with pytest.raises(ServiceError, match="artifact/0 does not exist"):
        tracking.call("AddAssociation", SourceArn=artifact_arn, DestinationArn=artifact_arn.rpartition("/")[0] + "/0")
