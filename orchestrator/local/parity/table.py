"""The table of parity rows for each member of each supported operation, and the check of requests against it.

The rows of SageMaker's operations are in the resource families. A test compares the table with botocore's models, and
docs/maintaining/parity.md is generated from it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import Kind, all_kinds, load_modules
from microjobs_orchestrator.local.parity.common import LIST, LIST_WITH_STATUS, TAGS, honoured
from microjobs_orchestrator.local.parity.identity import ECR, IAM, STS
from microjobs_orchestrator.local.parity.logs import LOGS
from microjobs_orchestrator.local.parity.refusal import refusals
from microjobs_orchestrator.local.parity.rows import Honoured, Rows
from microjobs_orchestrator.local.parity.runtime import RUNTIME
from microjobs_orchestrator.local.parity.s3 import S3


def _common_rows(kind: Kind) -> Iterator[tuple[str, Rows]]:
    """Yield the rows of the operations that all kinds have alike, except Create."""
    for verb in kind.verbs:
        listing = LIST_WITH_STATUS if kind.life else LIST
        yield kind.operations[verb], listing if verb == "List" else honoured(kind.name_member)


SAGEMAKER: dict[str, Rows] = {
    **{operation: rows for kind in all_kinds() for operation, rows in _common_rows(kind)},
    **{operation: rows for module in load_modules("parity") for operation, rows in module.ROWS.items()},
    "AddTags": {"ResourceArn": Honoured(), "Tags": TAGS},
    "ListTags": honoured("ResourceArn", "NextToken", "MaxResults"),
    "DeleteTags": honoured("ResourceArn", "TagKeys"),
}

TABLE: Mapping[str, Mapping[str, Rows]] = {
    "sagemaker": SAGEMAKER,
    "sagemaker-runtime": RUNTIME,
    "s3": S3,
    "logs": LOGS,
    "sts": STS,
    "iam": IAM,
    "ecr": ECR,
}
"""Rows for each member of each supported operation, by botocore's name of the service."""

CODES: Mapping[str, tuple[str, int]] = {
    "sagemaker": ("ValidationException", 400),
    "sagemaker-runtime": ("ValidationError", 400),
    "s3": ("NotImplemented", 501),
    "logs": ("InvalidParameterException", 400),
    "sts": ("ValidationError", 400),
    "iam": ("ValidationError", 400),
    "ecr": ("InvalidParameterException", 400),
}
"""Each service's error code and HTTP status for a request that it does not accept."""


def refuse(service: str, operation: str, params: Mapping[str, Any]) -> None:
    """Refuse a request that is valid on AWS and asks for something that is not supported.

    Raises:
        ServiceError: names each such member, its value, and the reason or what to do instead.
    """
    found = refusals(TABLE[service][operation], params)
    if found:
        code, status = CODES[service]
        raise ServiceError(code, "Not supported here: " + "; ".join(found), status)
