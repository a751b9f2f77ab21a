"""The bucket: whether it can be used, and whether it is in the region of the jobs."""

from collections.abc import Iterator
from dataclasses import dataclass

from botocore.exceptions import ClientError

from microjobs_orchestrator.doctor.account.account import DEPLOY_TEMPLATE, Account
from microjobs_orchestrator.doctor.check import Finding


@dataclass(frozen=True)
class Bucket:
    account: Account
    name: str = "the bucket"

    def run(self) -> Iterator[Finding]:
        bucket, region = self.account.settings.bucket, self.account.settings.region
        try:
            response = self.account.client("s3").head_bucket(Bucket=bucket)
        except ClientError as error:
            yield unusable_bucket(bucket, error, region)
        else:
            bucket_region = response.get("BucketRegion", region)
            if bucket_region == region:
                yield Finding("ok", f"bucket {bucket} in {region}")
            else:
                yield wrong_region(bucket, bucket_region, region)


def unusable_bucket(bucket: str, error: ClientError, jobs_region: str) -> Finding:
    """Return the finding for an error of HeadBucket."""
    metadata = error.response["ResponseMetadata"]
    if metadata["HTTPStatusCode"] == 404:
        return Finding("problem", f"there is no bucket {bucket}", DEPLOY_TEMPLATE)
    if metadata["HTTPStatusCode"] == 301:
        region = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region", "another region")
        return wrong_region(bucket, region, jobs_region)
    message = f"these credentials may not use bucket {bucket}"
    return Finding("problem", message, "allow s3:ListBucket on it, or choose another bucket")


def wrong_region(bucket: str, region: str, jobs_region: str) -> Finding:
    message = f"bucket {bucket} is in {region}, and jobs run in {jobs_region}: SageMaker refuses that"
    return Finding("problem", message, f"--region {region}, or a bucket in {jobs_region}")
