"""Operations that the server itself requests, for example for the steps of a pipeline."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.parity.table import refuse_unsupported_members
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.local.resources.operations import Handler, Response, load_operations

SERVICE = "sagemaker"


class OperationCaller:
    """Performs operations of SageMaker with the checks that a client's request passes: validation and parity."""

    def __init__(self, context: Context, registry: Registry) -> None:
        self._context = context
        self._registry = registry

    @cached_property
    def _handlers(self) -> Mapping[str, Handler]:
        all_operations = load_operations(self._context, self._registry)
        return {name: handler for item in all_operations for name, handler in item.list_handlers().items()}

    def call(self, operation: str, members: Mapping[str, Any]) -> Response:
        """Perform an operation such as `CreateTrainingJob`; return its result.

        Raises:
            ServiceError: the request is invalid, has members that are not supported, or is refused by its handler.
        """
        request = dict(members)
        validate(load_operation_model(SERVICE, operation), request)
        refuse_unsupported_members(SERVICE, operation, request)
        return self._handlers[operation](request)
