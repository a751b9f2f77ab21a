"""Checks that each version in a model package group belongs to one completed training job."""

from typing import Any

GROUP = "drill"


class Registrations:
    """A model package group, in which each completed training job registers its model."""

    def __init__(self, sagemaker: Any) -> None:
        self._sagemaker = sagemaker
        arn = sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)["ModelPackageGroupArn"]
        self.config = {"ModelPackageGroupArn": arn}
        """The ModelPackageConfig of training jobs."""

    def check(self) -> None:
        """Check that each version belongs to one completed job, which names the version."""
        pages = self._sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=GROUP)
        for arn in pages.search("ModelPackageSummaryList[].ModelPackageArn"):
            package = self._sagemaker.describe_model_package(ModelPackageName=arn)
            name = package["MetadataProperties"]["GeneratedBy"].rpartition("/")[2]
            job = self._sagemaker.describe_training_job(TrainingJobName=name)
            assert (job["TrainingJobStatus"], job["OutputModelPackageArn"]) == ("Completed", arn), (package, job)

    def check_job(self, job: dict[str, Any]) -> None:
        """Check that the version of a completed job exists."""
        self._sagemaker.describe_model_package(ModelPackageName=job["OutputModelPackageArn"])
