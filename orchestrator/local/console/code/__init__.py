"""Requests that created resources, as code for boto3, the AWS CLI, and both versions of the SageMaker Python SDK."""
