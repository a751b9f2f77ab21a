"""SageMaker's operations: the operations of all resource families, and those for tags, lineage and Search.

The gateway has checked the requests.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.resources.lineage.artifacts import Artifacts
from microjobs_orchestrator.local.resources.lineage.associations import Associations
from microjobs_orchestrator.local.resources.operations import Handler, Operations, Request, Response
from microjobs_orchestrator.local.resources.search.operation import SearchOperation


class SageMaker:
    """The service SageMaker."""

    def __init__(self, context: Context, operations_of_kinds: Sequence[Operations]) -> None:
        self._context = context
        self._state = context.state
        self._operations_of_kinds = operations_of_kinds

    def list_handlers(self) -> Mapping[str, Handler]:
        tags = {"AddTags": self.add_tags, "ListTags": self.list_tags, "DeleteTags": self.delete_tags}
        handlers = {
            name: handler
            for operations in self._operations_of_kinds
            for name, handler in operations.list_handlers().items()
        }
        return handlers | {
            **tags,
            **Artifacts(self._context).list_handlers(),
            **Associations(self._context).list_handlers(),
            **SearchOperation(self._state, self._operations_of_kinds).list_handlers(),
        }

    def add_tags(self, request: Request) -> Response:
        arn = self._get_existing_arn(request)
        self._state.add_tags(arn, request["Tags"])
        return {"Tags": self._state.tags(arn)}

    def list_tags(self, request: Request) -> Response:
        tags, token = cut_page(self._state.tags(self._get_existing_arn(request)), request)
        return {"Tags": tags, **token}

    def delete_tags(self, request: Request) -> Response:
        self._state.delete_tags(self._get_existing_arn(request), request["TagKeys"])
        return {}

    def _get_existing_arn(self, request: Mapping[str, Any]) -> str:
        arn = str(request["ResourceArn"])
        if self._state.get_by_arn(arn) is None:
            raise ValidationError(f'Could not find resource "{arn}".')
        return arn
