"""SageMaker's operations: those of all resource families, tags, lineage, and Search.

The gateway has checked the requests.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.resources.lineage.artifacts import Artifacts
from microjobs_orchestrator.local.resources.lineage.associations import Associations
from microjobs_orchestrator.local.resources.operations import Answer, Handler, Operations, Request
from microjobs_orchestrator.local.resources.search.operation import Search


class SageMaker:
    """The service: the operations on all kinds of resources, on tags and on lineage, and Search."""

    def __init__(self, context: Context, kinds: Sequence[Operations]) -> None:
        self._context = context
        self._state = context.state
        self._kinds = kinds

    def operations(self) -> Mapping[str, Handler]:
        tags = {"AddTags": self.add_tags, "ListTags": self.list_tags, "DeleteTags": self.delete_tags}
        return {name: handler for kind in self._kinds for name, handler in kind.handlers().items()} | {
            **tags,
            **Artifacts(self._context).handlers(),
            **Associations(self._context).handlers(),
            **Search(self._state, self._kinds).handlers(),
        }

    def add_tags(self, request: Request) -> Answer:
        arn = self._get_existing_arn(request)
        self._state.add_tags(arn, request["Tags"])
        return {"Tags": self._state.tags(arn)}

    def list_tags(self, request: Request) -> Answer:
        tags, token = cut_page(self._state.tags(self._get_existing_arn(request)), request)
        return {"Tags": tags, **token}

    def delete_tags(self, request: Request) -> Answer:
        self._state.delete_tags(self._get_existing_arn(request), request["TagKeys"])
        return {}

    def _get_existing_arn(self, request: Mapping[str, Any]) -> str:
        arn = str(request["ResourceArn"])
        if self._state.get_by_arn(arn) is None:
            raise ValidationError(f'Could not find resource "{arn}".')
        return arn
