"""Finds the resources that requests identify by an ARN, by a name, or by `group/version`."""

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE, MODEL_PACKAGE_GROUP
from microjobs_orchestrator.local.state import Record


def find_package(context: Context, name: str) -> Record:
    """Return the record of a package that a request names. Raise ValidationError if it does not exist."""
    return _find(context, MODEL_PACKAGE, name)


def find_group(context: Context, name: str) -> Record:
    """Return the record of a group that a request names. Raise ValidationError if it does not exist."""
    return _find(context, MODEL_PACKAGE_GROUP, name)


def _find(context: Context, kind: Kind, name: str) -> Record:
    arn = name if name.startswith("arn:") else format_arn(f"{kind.arn_type}/{name}", context.settings.region)
    record = context.state.get_by_arn(arn)
    if record is None or record.kind != kind.arn_type:
        # Clients search the message for "does not exist".
        raise ValidationError(f"{kind.noun} {arn} does not exist.")
    return record


def make_conflict_error(message: str) -> ServiceError:
    return ServiceError("ConflictException", message)
