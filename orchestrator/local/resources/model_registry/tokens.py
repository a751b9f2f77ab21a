"""Idempotent requests: a repeated request with the same ClientToken changes nothing."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE
from microjobs_orchestrator.local.resources.model_registry.names import make_conflict_error
from microjobs_orchestrator.local.state import Owner, Query, State

CLIENT_TOKEN = "ClientToken"  # noqa: S105  the name of a member
RECORD_KIND = "model-package-token"


def find_package_arn(state: State, operation: str, request: Mapping[str, Any]) -> str | None:
    """Return the ARN of the package that an earlier request with the same ClientToken created or changed.

    Return None if there was no such request, or if `request` has no ClientToken.

    Raises:
        ServiceError: the earlier request had other members, or other values of them.
    """
    token = request.get(CLIENT_TOKEN)
    earlier_record = state.get(RECORD_KIND, f"{operation}/{token}") if token else None
    if earlier_record is None:
        return None
    if earlier_record.request != request:
        raise make_conflict_error(
            f"{CLIENT_TOKEN} {token!r} belongs to an earlier request with other members: use a new token."
        )
    return str(earlier_record.internal["Arn"])


def remember(state: State, operation: str, request: Mapping[str, Any], arn: str) -> None:
    """Store the result of a request. The caller's transaction also stores the change that the request made."""
    if token := request.get(CLIENT_TOKEN):
        name, internal = f"{operation}/{token}", {"Arn": arn}
        state.add(RECORD_KIND, name, "", "", request, {}, internal=internal, owner=_make_owner(arn))


def forget(state: State, arn: str) -> None:
    """Remove the tokens of a package that is deleted."""
    while records := state.find(Query(RECORD_KIND, owner=_make_owner(arn))):
        for record in records:
            state.delete(RECORD_KIND, record.name)


def _make_owner(arn: str) -> Owner:
    return Owner(MODEL_PACKAGE.arn_type, arn)
