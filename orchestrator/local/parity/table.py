"""The parity rows for each member of each supported operation, and the check of requests against them.

The rows of SageMaker's operations are in the resource families. A test compares the table with botocore's models, and
docs/maintaining/parity.md is generated from it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import Kind, load_kinds, load_modules
from microjobs_orchestrator.local.parity.autoscaling import AUTO_SCALING
from microjobs_orchestrator.local.parity.common import LIST_ROWS, LIST_ROWS_WITH_STATUS, TAGS, make_honoured_rows
from microjobs_orchestrator.local.parity.metrics import CLOUDWATCH, SAGEMAKER_METRICS
from microjobs_orchestrator.local.parity.rows import Honoured, Rows, list_refusals
from microjobs_orchestrator.local.parity.s3 import S3
from microjobs_orchestrator.local.parity.services import ECR, IAM, LOGS, RUNTIME, SQS, STS


def _list_common_rows(kind: Kind) -> Iterator[tuple[str, Rows]]:
    """Yield the rows of a kind's Describe, List, Stop and Delete. The rows of Create differ between the kinds."""
    for verb in kind.verbs:
        listing = LIST_ROWS_WITH_STATUS if kind.lifecycle else LIST_ROWS
        yield kind.operations[verb], listing if verb == "List" else make_honoured_rows(kind.identifier_member)


SAGEMAKER: dict[str, Rows] = {
    **{operation: rows for kind in load_kinds() for operation, rows in _list_common_rows(kind)},
    **{operation: rows for module in load_modules("parity") for operation, rows in module.ROWS.items()},
    "AddTags": {"ResourceArn": Honoured(), "Tags": TAGS},
    "ListTags": make_honoured_rows("ResourceArn", "NextToken", "MaxResults"),
    "DeleteTags": make_honoured_rows("ResourceArn", "TagKeys"),
}

TABLE: Mapping[str, Mapping[str, Rows]] = {
    "sagemaker": SAGEMAKER,
    "sagemaker-runtime": RUNTIME,
    "sagemaker-metrics": SAGEMAKER_METRICS,
    "s3": S3,
    "logs": LOGS,
    "cloudwatch": CLOUDWATCH,
    "sts": STS,
    "iam": IAM,
    "ecr": ECR,
    "sqs": SQS,
    "application-autoscaling": AUTO_SCALING,
}
"""Rows for each member of each supported operation, by botocore's name of the service."""

REFUSAL_CODES: Mapping[str, str] = {
    "sagemaker": "ValidationException",
    "sagemaker-metrics": "ValidationException",
    "s3": "NotImplemented",
    "logs": "InvalidParameterException",
    "ecr": "InvalidParameterException",
    "sqs": "UnsupportedOperation",
    "application-autoscaling": "ValidationException",
}
"""Error codes for a request that is not supported, by service; `ValidationError` for other services."""


def refuse_unsupported_members(service: str, operation: str, params: Mapping[str, Any]) -> None:
    """Refuse a request with members that AWS supports and this server does not.

    Raises:
        ServiceError: names each of these members, its value, and the reason or a remedy.
    """
    if refusals := "; ".join(list_refusals(TABLE[service][operation], params)):
        code, status = REFUSAL_CODES.get(service, "ValidationError"), 501 if service == "s3" else 400
        raise ServiceError(code, f"Not supported here: {refusals}", status)
