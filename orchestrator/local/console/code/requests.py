"""The Create requests of a resource, and of the resources that it consists of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.model import StructureShape

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import Kind, all_kinds
from microjobs_orchestrator.local.protocols.answer import Service
from microjobs_orchestrator.local.protocols.models import operation_model
from microjobs_orchestrator.local.state import Record, State

SERVICE = "sagemaker"
CONFIG = "EndpointConfigName"


@dataclass(frozen=True)
class CreateRequest:
    """A request that creates a resource."""

    kind: Kind
    members: Mapping[str, Any]
    """The members without the token that makes a repeated request return the first resource."""

    @property
    def operation(self) -> str:
        return self.kind.operations["Create"]

    @property
    def shape(self) -> StructureShape:
        return _get_input(self.kind)

    @property
    def tokens(self) -> list[str]:
        """The members whose value must be new in each request."""
        return _get_tokens(self.kind)


CHANGING_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "endpoint": (CONFIG,),
    "pipeline": ("PipelineDefinition", "PipelineDescription", "RoleArn"),
}
"""Members whose present values Describe returns: Update operations change them."""


class Requests:
    """The requests that created resources.

    Args:
        state: all resources.
        operations: SageMaker's operations.
    """

    def __init__(self, state: State, operations: Service) -> None:
        self._state, self._operations = state, operations
        self._kinds = {kind.arn_type: kind for kind in all_kinds()}

    def find(self, arn: str) -> list[CreateRequest]:
        """Return the requests in the order in which clients send them. The last one creates the resource with the ARN.

        Raises:
            ServiceError: the resource does not exist, or no request created it.
        """
        record = self._state.get_by_arn(arn)
        if record is None or record.kind not in self._kinds or not record.request:
            raise ServiceError("ResourceNotFoundException", f"there is no request of a resource {arn!r:.200}")
        return list(self._make_requests(record))

    def _make_requests(self, record: Record) -> Iterator[CreateRequest]:
        """Yield the request of a resource, after those of an endpoint's configuration and models that still exist."""
        request = self._make_request(record)
        if record.kind == "endpoint" and (config := self._state.get("endpoint-config", request.members[CONFIG])):
            yield from self._make_requests(config)
        if record.kind == "endpoint-config":
            models = [self._state.get("model", name) for name in _list_models(record.request)]
            yield from (self._make_request(model) for model in models if model)
        yield request

    def _make_request(self, record: Record) -> CreateRequest:
        """Return a request without its token. A stored request may also have copies of other resources."""
        kind = self._kinds[record.kind]
        names = _get_input(kind).members.keys() - set(_get_tokens(kind))
        members = {name: value for name, value in record.request.items() if name in names}
        if changing := CHANGING_MEMBERS.get(record.kind):
            found: Any = self._operations[kind.operations["Describe"]]({kind.name_member: record.name})
            members |= {name: found[name] for name in changing if name in found}
        return CreateRequest(kind, members)


def _list_models(config: Mapping[str, Any]) -> list[str]:
    """Return the names of an endpoint configuration's models."""
    variants = (*config.get("ProductionVariants", ()), *config.get("ShadowProductionVariants", ()))
    return list(dict.fromkeys(one["ModelName"] for one in variants if "ModelName" in one))


def _get_tokens(kind: Kind) -> list[str]:
    return list(operation_model(SERVICE, kind.operations["Create"]).idempotent_members)


def _get_input(kind: Kind) -> StructureShape:
    shape = operation_model(SERVICE, kind.operations["Create"]).input_shape
    if shape is None:
        raise TypeError(f"{kind.operations['Create']} has no members")
    return shape
