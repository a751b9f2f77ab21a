"""Adding the record of a new resource, and finding the record of an existing one."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ResourceInUseError, ServiceError, ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.state import NameTakenError, Owner, Record


def add_resource(
    context: Context,
    kind: Kind,
    request: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    members: Mapping[str, Any] | None = None,
    kept: Mapping[str, Any] | None = None,
    internal: Mapping[str, Any] | None = None,
    owner: Owner | None = None,
) -> Record:
    """Add the resource of a valid Create request: its description has the request's members, its ARN and its status.

    Args:
        defaults: members of the description that the request may replace.
        members: members of the description that replace those of the request.
        kept: values that the server keeps with the request, for whatever runs.
        internal: the server's own values.
        owner: the resource that creates it.

    Raises:
        ServiceError: a resource of that kind and name exists.
    """
    name, first = request[kind.name_member], kind.life.first if kind.life else ""
    arn = format_arn(f"{kind.arn_type}/{name}", context.settings.region)
    own = {member: value for member, value in request.items() if member != "Tags"}
    status = {kind.status_member: first} if first else {}
    description = {**(defaults or {}), **own, **(members or {}), kind.arn_member: arn, **status}
    try:
        return context.state.add(
            kind.arn_type,
            name,
            arn,
            first,
            {**request, **(kept or {})},
            description,
            internal=internal,
            tags=request.get("Tags", []),
            owner=owner,
        )
    except NameTakenError as error:
        raise _name_taken(kind, name, arn) from error


def _name_taken(kind: Kind, name: str, arn: str) -> ServiceError:
    """The error for a name that is in use, in the words that AWS uses for jobs and for other resources."""
    if "Stop" in kind.verbs:
        return ResourceInUseError(f"{kind.words.capitalize()} names must be unique: {name} already exists.")
    return ValidationError(f'Cannot create already existing {kind.words} "{arn}".')


def find_resource(context: Context, kind: Kind, name: str) -> Record:
    """Return the record of an existing resource.

    Raises:
        ValidationError: no such resource exists. SDKs search the message for "Could not find".
    """
    record = context.state.get(kind.arn_type, name)
    if record is None:
        raise ValidationError(
            f'Could not find {kind.words} "{format_arn(f"{kind.arn_type}/{name}", context.settings.region)}".'
        )
    return record
