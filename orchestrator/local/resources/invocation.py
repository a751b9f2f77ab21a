"""Operations that the server itself requests, such as a pipeline's execution, on the path of a client's request."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.parity.table import refuse
from microjobs_orchestrator.local.protocols.models import operation_model
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.local.resources.operations import Answer, Handler, load_operations

SERVICE = "sagemaker"


class Invoker:
    """Performs operations of SageMaker with the checks that a client's request passes: validation and parity."""

    def __init__(self, context: Context, registry: Registry) -> None:
        self._context = context
        self._registry = registry

    @cached_property
    def _handlers(self) -> Mapping[str, Handler]:
        kinds = load_operations(self._context, self._registry)
        return {name: handler for kind in kinds for name, handler in kind.handlers().items()}

    def invoke(self, operation: str, members: Mapping[str, Any]) -> Answer:
        """Perform an operation such as `CreateTrainingJob`; return its result.

        Raises:
            ServiceError: the request is invalid, has members that are not supported, or is refused by its handler.
        """
        request = dict(members)
        validate(operation_model(SERVICE, operation), request)
        refuse(SERVICE, operation, request)
        return self._handlers[operation](request)
