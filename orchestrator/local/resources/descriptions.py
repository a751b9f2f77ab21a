"""Members that a response contains unchanged, as the server received them."""

from collections.abc import Collection, Mapping
from typing import Any

from botocore.model import ListShape, Shape, StructureShape

from microjobs_orchestrator.local import temporary_credentials
from microjobs_orchestrator.local.protocols.models import load_operation_model


def select_response_members(
    operation: str, request: Mapping[str, Any], *, excluded_members: Collection[str] = ()
) -> dict[str, Any]:
    """Return the members of a request, at all levels, that the response of a SageMaker operation also has."""
    shape: Any = load_operation_model("sagemaker", operation).output_shape
    copied: dict[str, Any] = _copy(shape, request)
    return {name: value for name, value in copied.items() if name not in excluded_members}


def _copy(shape: Shape, value: Any) -> Any:
    if isinstance(shape, StructureShape):
        return {name: _copy(member, value[name]) for name, member in shape.members.items() if name in value}
    if isinstance(shape, ListShape):
        return [_copy(shape.member, item) for item in value]
    return value


def describe_caller() -> dict[str, Any]:
    """Return a UserContext: the identity of the client whose request this thread answers."""
    caller = temporary_credentials.current_caller.get()
    return {"IamIdentity": {"Arn": caller.arn, "PrincipalId": caller.user_id}}
