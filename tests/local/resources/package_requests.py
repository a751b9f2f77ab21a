"""Requests about model packages with all members that the parity rows accept."""

from collections.abc import Mapping
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.parity.rows import Members, Refused, Rows
from microjobs_orchestrator.local.parity.table import TABLE
from microjobs_orchestrator.local.protocols.models import load_operation_model

GROUP = "group"
DIGEST = f"sha256:{'0' * 64}"

VALUES_BY_MEMBER: Mapping[str, Any] = {
    "ModelPackageGroupName": GROUP,
    "ModelPackageArn": format_arn(f"model-package/{GROUP}/1"),
    "ModelApprovalStatus": "Approved",
    "S3Uri": "s3://bucket/in/a",
    "S3DataType": "S3Object",
    "ContentDigest": DIGEST,
    "ImageDigest": DIGEST,
    "FrameworkVersion": "1.2",
    "HubContentVersion": "1.0.0",
    "ModelCardContent": '{"intended_uses": {"risk_rating": "Low"}}',
    "SamplePayloadUrl": "s3://bucket/sample.tar.gz",
    "SupportedResponseMIMETypes": ["text/csv"],
    "SecurityConfig": {"KmsKeyId": "key"},
}
"""Values of members, by name. Other text members have the first value of their enum, or else their name."""

EXCLUSIVE_MEMBERS = ("ModelPackageName", "SourceUri", "Tags", "ModelDataUrl", "ModelDataETag", "ETag")
"""Members that cannot be combined with other members, or whose values depend on other members."""


def make_package_request(operation: str) -> dict[str, Any]:
    """Return a valid request of CreateModelPackage or UpdateModelPackage about the first version in `GROUP`."""
    shape: Any = load_operation_model("sagemaker", operation).input_shape
    request = _make_structure(shape, TABLE["sagemaker"][operation])
    for specification in request.get("AdditionalInferenceSpecificationsToAdd", []):
        specification["Name"] = "Added"
    return request


def _make_structure(shape: StructureShape, rows: Rows) -> dict[str, Any]:
    names = [name for name, row in rows.items() if not isinstance(row, Refused) and name not in EXCLUSIVE_MEMBERS]
    return {
        name: VALUES_BY_MEMBER[name] if name in VALUES_BY_MEMBER else _make_value(shape.members[name], name, rows[name])
        for name in names
    }


def _make_value(shape: Shape, name: str, row: object) -> Any:
    if isinstance(shape, ListShape):
        return [_make_value(shape.member, name, row)]
    if isinstance(shape, StructureShape):
        assert isinstance(row, Members), name
        return _make_structure(shape, row.rows)
    if isinstance(shape, MapShape):
        return {"key": "value"}
    return {"string": (getattr(shape, "enum", None) or [name])[0], "boolean": True}.get(shape.type_name, 1)
