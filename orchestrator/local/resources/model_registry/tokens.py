"""Idempotent requests: a repeated request with the same ClientToken changes nothing."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE
from microjobs_orchestrator.local.resources.model_registry.names import make_conflict_error
from microjobs_orchestrator.local.state import Owner, Query, State

MEMBER = "ClientToken"
KIND = "model-package-token"


def find_result(state: State, operation: str, request: Mapping[str, Any]) -> str | None:
    """Return the ARN of the package that an earlier request with this token created or changed; None if none did.

    Raises:
        ServiceError: the earlier request had other members.
    """
    token = request.get(MEMBER)
    earlier = state.get(KIND, f"{operation}/{token}") if token else None
    if earlier is None:
        return None
    if earlier.request != request:
        raise make_conflict_error(
            f"{MEMBER} {token!r} belongs to an earlier request with other members: use a new one."
        )
    return str(earlier.internal["Arn"])


def remember(state: State, operation: str, request: Mapping[str, Any], arn: str) -> None:
    """Store the result of a request. The caller's transaction also stores the change that the request made."""
    if token := request.get(MEMBER):
        name, internal = f"{operation}/{token}", {"Arn": arn}
        state.add(KIND, name, "", "", request, {}, internal=internal, owner=_make_owner(arn))


def forget(state: State, arn: str) -> None:
    """Remove the tokens of a package that is deleted."""
    while records := state.find(Query(KIND, owner=_make_owner(arn))):
        for record in records:
            state.delete(KIND, record.name)


def _make_owner(arn: str) -> Owner:
    return Owner(MODEL_PACKAGE.arn_type, arn)
